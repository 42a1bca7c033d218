import io
import time
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr

from sari_jax.audio.files import load_waveform
from sari_jax.corpus.clean import fingerprint as prints
from sari_jax.corpus.clean.fingerprint import (
    MOST_ERRORS,
    Fingerprint,
    bit_errors,
    fingerprint,
    near_pairs,
)


def melody(seed: int) -> np.ndarray:
    """A few decaying notes with overtones, as the starter corpus composes them."""
    generator, parts = np.random.default_rng(seed), []
    timbre = generator.uniform(0, 1, 6)
    for _ in range(6):
        seconds = np.arange(int(generator.uniform(0.4, 0.9) * 16_000)) / 16_000
        pitch = 220 * 2 ** (generator.integers(0, 24) / 12)
        tone = sum(a * np.sin(2 * np.pi * pitch * k * seconds) for k, a in enumerate(timbre, 1))
        parts += [tone * np.exp(-3 * seconds), np.zeros(int(generator.uniform(800, 4800)))]
    whole = np.concatenate(parts)
    noise = 1e-4 * generator.normal(size=len(whole))
    return (0.6 * whole / np.abs(whole).max() + noise).astype(np.float32)


def hiss(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    loudness = np.repeat(generator.uniform(0, 1, 20), 3_200)
    return (0.3 * generator.uniform(-1, 1, 64_000) * loudness).astype(np.float32)


def encoded(waveform: np.ndarray, kind: str, **how) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, waveform, 16_000, format=kind, **how)
    return load_waveform(file.getvalue())


CLIPS = [melody(seed) for seed in range(20)] + [hiss(seed) for seed in range(10)]


@pytest.fixture(scope="module")
def ours() -> list[Fingerprint]:
    return [fingerprint(clip) for clip in CLIPS]


CHANGES = {
    "mp3": lambda x: encoded(x, "MP3"),
    "ogg": lambda x: encoded(x, "OGG"),
    "8 bits": lambda x: encoded(x, "WAV", subtype="PCM_U8"),
    "gain": lambda x: 0.1 * x,
    "resampled": lambda x: soxr.resample(soxr.resample(x, 16_000, 8_000), 8_000, 16_000),
    "noise": lambda x: x + 0.03 * x.std() * np.random.default_rng(9).normal(size=len(x)),
    "trimmed": lambda x: x[1_111:-5_000],
    "padded": lambda x: np.pad(x, (3_333, 0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_sound_is_known_again_and_no_other(change, ours):
    theirs = [fingerprint(CHANGES[change](clip).astype(np.float32)) for clip in CLIPS]
    found = near_pairs(ours, theirs)
    assert {(i, j) for i, j, _ in found if i != j} == set()
    # Of white noise mp3 and ogg keep the loudness, not the samples: that is the one thing not known again.
    assert [pair[:2] for pair in found][:20] == [(i, i) for i in range(20)]
    assert len(found) == 30 or change in ("mp3", "ogg")
    if change == "gain":
        assert {a.digest for a in ours}.isdisjoint(b.digest for b in theirs)


def test_different_sounds_are_told_apart(ours):
    errors = [bit_errors(a, b) for i, a in enumerate(ours) for b in ours[:i]]
    assert min(errors) > MOST_ERRORS
    assert near_pairs(ours) == []


def test_the_same_samples_have_the_same_digest(tmp_path):
    soundfile.write(tmp_path / "a.wav", CLIPS[0], 16_000)
    soundfile.write(tmp_path / "a.flac", load_waveform(tmp_path / "a.wav"), 16_000)
    one, other = (fingerprint(load_waveform(tmp_path / f"a.{kind}")) for kind in ("wav", "flac"))
    assert one.digest == other.digest != fingerprint(CLIPS[1]).digest
    assert bit_errors(one, other) == 0


def test_silence_steady_tones_and_clicks_are_like_nothing():
    seconds = np.arange(48_000) / 16_000
    tones = [0.5 * np.sin(2 * np.pi * hertz * seconds) for hertz in (220, 233, 440, 441, 3000)]
    others = [np.zeros(size) for size in (1, 100, 16_000, 32_000)] + [np.ones(1), np.ones(321)]
    ours = [fingerprint(x.astype(np.float32)) for x in tones + others]
    assert near_pairs(ours) == []
    assert near_pairs([]) == []


def test_an_excerpt_counts_only_where_asked():
    long = np.concatenate([CLIPS[0], CLIPS[1], CLIPS[2]])
    whole, part = fingerprint(long), fingerprint(CLIPS[1])
    assert bit_errors(whole, part) == 1
    assert bit_errors(whole, part, excerpts=True) < MOST_ERRORS
    assert near_pairs([whole, part]) == []
    assert [pair[:2] for pair in near_pairs([part], [whole])] == [(0, 0)]


@pytest.fixture
def crowd():
    generator = np.random.default_rng(0)
    size = len(CLIPS[0])
    return [
        fingerprint((CLIPS[0] + 1e-4 * generator.normal(size=size)).astype(np.float32))
        for _ in range(40)
    ]


def test_each_of_a_crowd_is_paired_with_its_first(crowd):
    pairs = [pair[:2] for pair in near_pairs(crowd)]
    assert {(0, j) for j in range(1, 40)} <= set(pairs)
    assert len(pairs) == len(set(pairs)) < 6 * 40


def test_a_crowd_hides_no_sound_of_others(crowd):
    others = [fingerprint(CLIPS[1]), fingerprint(CLIPS[0])]
    assert [pair[:2] for pair in near_pairs(crowd, others)] == [(i, 1) for i in range(40)]
    assert {i for i, _, _ in near_pairs(crowd[:2], crowd)} == {0, 1}


def noise_of(frames: int, seed: int) -> Fingerprint:
    """A fingerprint of numbers at random."""
    bits = np.random.default_rng(seed).integers(0, 2**63, frames, np.uint64)
    return Fingerprint(str(seed), frames * 64, 1.0, bits, np.ones(frames, bool))


def test_pairs_are_the_same_in_parts(monkeypatch):
    ours = [noise_of(100, seed % 7) for seed in range(20)]
    whole = near_pairs(ours)
    assert {pair[:2] for pair in whole} == {
        (i, j) for j in range(20) for i in range(j) if (j - i) % 7 == 0
    }
    monkeypatch.setattr(prints, "AT_ONCE", 64)
    assert near_pairs(ours) == whole


def test_memory_is_bounded_by_what_is_shared(monkeypatch):
    monkeypatch.setattr(prints, "AT_ONCE", 1 << 16)
    ours = [noise_of(4_000, seed) for seed in range(250)]
    tracemalloc.start()
    try:
        assert near_pairs([*ours, ours[3]]) == [(3, 250, 0.0)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1_000_000  # of a million numbers less than they take themselves


def test_ten_minutes_take_little_time():
    started = time.perf_counter()
    found = fingerprint(np.random.default_rng(0).uniform(-1, 1, 9_600_000).astype(np.float32))
    assert len(found.bits) == pytest.approx(600 / 0.0128, rel=0.01)
    assert time.perf_counter() - started < 30
