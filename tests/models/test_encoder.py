import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sari_jax.models.config import AudioLMConfig, DecoderConfig, EncoderConfig
from sari_jax.models.encoder import LOOKAHEAD, Encoder, frame_counts, sinusoids, windows

CONFIG = EncoderConfig(mel_bins=80, width=16, layers=2, heads=2, ffn=32)
DECODER = DecoderConfig(vocabulary=8, width=8, layers=1, heads=1, kv_heads=1, head_dim=8, ffn=8)


@functools.cache
def tower(config):
    # By one program: made array by array, each random draw would be compiled alone.
    return nnx.jit(lambda: Encoder(AudioLMConfig(config, DECODER, audio_token_id=1), nnx.Rngs(0)))()


run = nnx.jit(lambda encoder, waveforms, lengths: encoder(waveforms, lengths))


def heard(config, waveforms, *lengths):
    """Features by one program for each shape; few shapes, so that few are compiled."""
    return np.asarray(run(tower(config), np.asarray(waveforms), np.array(lengths)))


def noise(*shape):
    return (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def their_frame_counts(samples):
    import torch
    from transformers import Qwen2AudioEncoderConfig
    from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

    theirs = Qwen2AudioEncoder(
        Qwen2AudioEncoderConfig(
            d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16
        )
    )
    mel = torch.tensor([-(-count // 160) for count in samples])
    return np.stack(theirs._get_feat_extract_output_lengths(mel), axis=1)


def test_frames_are_counted_as_transformers_counts_them(recorded):
    samples = [321, 640, 641, 12_345, 48_000, 479_999, 480_000]
    found = np.array([frame_counts(count) for count in samples])
    for ours, wanted in recorded(
        {"counts": found}, lambda _: {"counts": their_frame_counts(samples)}
    ):
        np.testing.assert_array_equal(ours["counts"], wanted["counts"])


@pytest.mark.numerics
@pytest.mark.parametrize("seconds", [4, pytest.param(30, marks=pytest.mark.numerics)])
def test_a_short_bucket_gives_what_the_longest_gives(seconds):
    config = dataclasses.replace(CONFIG, seconds=seconds)
    length, size = 640 * 25, 640 * 25 + LOOKAHEAD
    clip = noise(length)
    wanted, found = (
        heard(config, np.pad(clip, (0, s - length))[None], length) for s in (seconds * 16_000, size)
    )
    count = frame_counts(length)[1]
    np.testing.assert_allclose(found[0, :count], wanted[0, :count], atol=1e-4)


@pytest.mark.numerics
def test_a_clip_does_not_hear_its_neighbours():
    """Nor does it matter to it that one is longer, or absent."""
    waveforms, lengths = noise(3, 640 * 26), (9_000, 16_000, 0)
    config = dataclasses.replace(CONFIG, seconds=4)
    waveforms = np.where(np.arange(640 * 26) < np.array(lengths)[:, None], waveforms, 0)
    both = heard(config, waveforms, *lengths)
    alone = heard(config, waveforms[:1], *lengths[:1])
    count = frame_counts(9_000)[1]
    np.testing.assert_allclose(both[0, :count], alone[0, :count], atol=1e-5)
    assert bool(np.isfinite(both).all())


WINDOWED = dataclasses.replace(CONFIG, seconds=300, window=40, sinusoids=True)


def test_a_window_hears_itself_alone():
    """By hand, without any other implementation: what changes in one window of 0.4 s changes its own frames only.

    The spectrum of a tone's edge reaches 200 samples further, so that the change is kept clear of the borders.
    """
    clip = noise(19_200)  # three windows of 6400 samples
    louder = clip.copy()
    louder[6400 + 500 : 2 * 6400 - 500] *= 0.5
    before, after = (heard(WINDOWED, x[None], 19_200)[0] for x in (clip, louder))
    changed = np.abs(before - after).max(axis=1) > 1e-6
    assert changed.tolist() == [10 <= frame < 20 for frame in range(30)]


def test_a_last_window_hears_neither_its_padding_nor_a_neighbour():
    """2.3 windows alone, and beside a longer clip in a bucket with windows that are padding from end to end."""
    length = int(2.3 * 6400)
    clips = noise(2, 64_000)
    clips[0, length:] = clips[1, 50_000:] = 0
    both = heard(WINDOWED, clips, length, 50_000)
    alone = heard(WINDOWED, clips[:1, :19_200], length)
    count = frame_counts(length)[1]
    assert 20 < count < 30
    np.testing.assert_allclose(both[0, :count], alone[0, :count], atol=1e-5)


def test_windows_are_numbered_from_their_start():
    """Two windows with the same sound give the same frames: positions and convolutions begin anew."""
    mel = jax.random.normal(jax.random.key(0), (1, 40, 80))
    both, counts = windows(jnp.concatenate([mel, mel], axis=1), jnp.array([80]), 40)
    assert counts.tolist() == [40, 40]
    np.testing.assert_array_equal(both[0], both[1])
    twice = np.tile(0.1 * np.sin(np.arange(6400) * 0.05), 3).astype(np.float32)
    found = heard(WINDOWED, twice[None], 3 * 6400)[0]
    # The first window's first frames hear the reflected start instead of what went before.
    np.testing.assert_allclose(found[11:19], found[21:29], atol=1e-4)


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(39, 40, [39, 0]), (40, 40, [40, 0]), (41, 40, [40, 1]), (80, 40, [40, 40]), (0, 40, [0, 0])],
)
def test_counts_of_windows(count, size, expected):
    mel, counts = windows(jnp.ones((1, 78, 3)), jnp.array([count]), size)
    assert mel.shape == (2, size, 3) and counts.tolist() == expected


def their_sinusoids():
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import SinusoidsPositionEmbedding

    return SinusoidsPositionEmbedding(100, 24)(100).numpy()


def test_sinusoids_are_whispers(recorded):
    found = {"sinusoids": np.asarray(sinusoids(100, 24))}
    for ours, wanted in recorded(found, lambda _: {"sinusoids": their_sinusoids()}):
        np.testing.assert_allclose(
            ours["sinusoids"], wanted["sinusoids"], atol=1e-5
        )  # angles near 100 have steps of 8e-6


@pytest.mark.numerics
def test_a_clip_of_five_minutes():
    """Its first and last frames are those of the clip cut there, at the borders of windows.

    Noise stays above the floor below its loudest value that log-mel is cut at, wherever that value is.
    """
    clip = noise(300 * 16_000)
    whole = heard(WINDOWED, clip[None], len(clip))[0]
    assert whole.shape == (7500, 16)
    part = heard(WINDOWED, clip[None, :48_000], 48_000)[0]
    np.testing.assert_allclose(whole[:70], part[:70], atol=1e-3)
    part = heard(WINDOWED, clip[None, -51_200:], 51_200)[0]
    np.testing.assert_allclose(whole[-60:], part[-60:], atol=1e-3)
