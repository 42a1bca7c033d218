import io
import time

import numpy as np
import pytest
import soundfile
import soxr

from sari_jax.audio.files import load_waveform
from sari_jax.data.clean.fingerprint import MOST_ERRORS, bit_errors, fingerprint, near_pairs


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
def test_a_changed_sound_is_known_again_and_no_other(change):
    ours = [fingerprint(clip) for clip in CLIPS]
    theirs = [fingerprint(CHANGES[change](clip).astype(np.float32)) for clip in CLIPS]
    found = near_pairs(ours, theirs)
    assert {(i, j) for i, j, _ in found if i != j} == set()
    # Of white noise mp3 and ogg keep the loudness, not the samples: that is the one thing not known again.
    assert [pair[:2] for pair in found][:20] == [(i, i) for i in range(20)]
    assert len(found) == 30 or change in ("mp3", "ogg")
    assert {a.digest for a in ours}.isdisjoint(
        b.digest for a, b in zip(ours, theirs, strict=True) if change == "gain"
    )


def test_different_sounds_are_told_apart():
    prints = [fingerprint(clip) for clip in CLIPS]
    errors = [bit_errors(a, b) for i, a in enumerate(prints) for b in prints[:i]]
    assert min(errors) > MOST_ERRORS
    assert near_pairs(prints) == []


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
    prints = [fingerprint(x.astype(np.float32)) for x in tones + others]
    assert near_pairs(prints) == []
    assert near_pairs([]) == []


def test_an_excerpt_counts_only_where_asked():
    long = np.concatenate([CLIPS[0], CLIPS[1], CLIPS[2]])
    whole, part = fingerprint(long), fingerprint(CLIPS[1])
    assert bit_errors(whole, part) == 1
    assert bit_errors(whole, part, excerpts=True) < MOST_ERRORS
    assert near_pairs([whole, part]) == []
    assert [pair[:2] for pair in near_pairs([part], [whole])] == [(0, 0)]


def test_a_crowd_that_shares_its_numbers_is_chained():
    generator = np.random.default_rng(0)
    crowd = [
        fingerprint((CLIPS[0] + 1e-4 * generator.normal(size=len(CLIPS[0]))).astype(np.float32))
        for _ in range(40)
    ]
    linked = {0}
    for i, j, _ in sorted(near_pairs(crowd)):
        if i in linked:
            linked.add(j)
    assert linked == set(range(40))


def test_ten_minutes_take_little_time():
    started = time.perf_counter()
    found = fingerprint(np.random.default_rng(0).uniform(-1, 1, 9_600_000).astype(np.float32))
    assert len(found.bits) == pytest.approx(600 / 0.0128, rel=0.01)
    assert time.perf_counter() - started < 30
