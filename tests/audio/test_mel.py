import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from transformers import WhisperFeatureExtractor

from sari_jax.audio.mel import FULL, log_mel

RATE = 16_000
device_log_mel = jax.jit(log_mel, static_argnames="mel_bins")


def reference(waveform: np.ndarray, mel_bins: int) -> np.ndarray:
    """transformers' extractor in float64: the clip padded to 30 s, all 3000 frames."""
    extractor = WhisperFeatureExtractor(feature_size=mel_bins)
    padded = np.pad(waveform, (0, FULL - len(waveform)))
    return extractor._np_extract_fbank_features(padded[None], "cpu")[0]


def mel_on_device(waveform: np.ndarray, size: int, mel_bins: int = 80) -> np.ndarray:
    padded = np.pad(
        waveform, (0, size - len(waveform)), constant_values=0.7
    )  # not silence: must be masked
    return np.asarray(device_log_mel(padded[None], np.array([len(waveform)]), mel_bins=mel_bins)[0])


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def sweep(samples: int) -> np.ndarray:
    t = np.arange(samples) / RATE
    return (0.8 * np.sin(2 * np.pi * (80 * t + 700 * t**2))).astype(np.float32)


@pytest.mark.numerics
@pytest.mark.parametrize("seconds", [299.99, 300.0])
def test_five_minutes_as_the_extractor_that_pads_to_five_minutes(seconds):
    """There the reflected end of a whole clip lies elsewhere."""
    waveform, full = noise(int(seconds * RATE)), 300 * RATE
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=300)
    padded = np.pad(waveform, (0, full - len(waveform)))
    expected = extractor._np_extract_fbank_features(padded[None], "cpu")[0]
    got = log_mel(jnp.array(padded[None]), jnp.array([len(waveform)]), 128, full)[0]
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=0)


# Samples of the clip, and of its bucket.
SIZES = {
    "20 ms": (320, 320),
    "20 ms in 10 s": (320, 160_000),
    "one frame": (100, 160),
    "odd": (31_999, 32_000),
    "to the bucket's end": (32_000, 32_000),
    "odd in 4 s": (20_001, 64_000),
    "one frame less than 30 s": (FULL - 160, FULL - 160),
    "almost 30 s": (FULL - 1, FULL),
    "30 s": (FULL, FULL),
}


def check_against_the_extractor(sound, size: str, mel_bins: int) -> None:
    samples, padded = SIZES[size]
    waveform = sound(samples)
    expected = reference(waveform, mel_bins)
    got = mel_on_device(waveform, padded, mel_bins)
    assert got.shape == (mel_bins, padded // 160) and got.dtype == np.float32
    np.testing.assert_allclose(got, expected[:, : padded // 160], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("number", "size"), list(enumerate(SIZES)), ids=SIZES)
def test_equals_whisper_feature_extractor(number, size):
    """Every size once; the sounds and the numbers of bands take turns."""
    check_against_the_extractor((noise, sweep)[number // 2 % 2], size, (80, 128)[number % 2])


@pytest.mark.numerics
@pytest.mark.parametrize("mel_bins", [80, 128])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sound", [noise, sweep])
def test_equals_whisper_feature_extractor_for_any_sound_and_bands(sound, size, mel_bins):
    check_against_the_extractor(sound, size, mel_bins)


def test_what_is_left_out_of_30_seconds_is_the_floor():
    """So that the encoder may be given the bucket alone."""
    expected, got = reference(noise(16_000), 80), mel_on_device(noise(16_000), 32_000)
    np.testing.assert_allclose(expected[:, 200:], got.min(), atol=1e-4)


def test_silence():
    got = mel_on_device(np.zeros(32_000, np.float32), 32_000)
    np.testing.assert_allclose(got, reference(np.zeros(32_000, np.float32), 80)[:, :200], atol=1e-6)


@pytest.mark.parametrize("place", [0, 1, 15_840, 15_999])
def test_a_click_at_either_end_sets_the_floor(place):
    """A click on the last sample is loudest in a frame centred behind the clip."""
    waveform = 1e-3 * noise(16_000)
    waveform[place] = 1.0
    np.testing.assert_allclose(
        mel_on_device(waveform, 16_000), reference(waveform, 80)[:, :100], atol=1e-4
    )


@pytest.mark.parametrize("mel_bins", [80, 128])
def test_a_quiet_end_is_held_to_the_floor_of_the_loud_start(mel_bins):
    waveform = np.concatenate([8 * noise(16_000), 1e-6 * noise(15_999, 1)])
    got, expected = (
        mel_on_device(waveform, 64_000, mel_bins),
        reference(waveform, mel_bins)[:, :400],
    )
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=0)
    assert (got[:, 110:] == got.min()).all() and got.max() - got.min() == pytest.approx(2.0)


def test_batched_equals_single():
    waveforms = np.stack([noise(32_000, seed) for seed in range(3)])
    lengths = np.array([32_000, 321, 9_999])
    together = device_log_mel(waveforms, lengths, mel_bins=80)
    for row in range(3):
        alone = device_log_mel(waveforms[row : row + 1], lengths[row : row + 1], mel_bins=80)[0]
        np.testing.assert_allclose(together[row], alone, atol=1e-6)


def test_bucket_does_not_matter():
    waveform = sweep(12_345)
    short, long = mel_on_device(waveform, 16_000), mel_on_device(waveform, 64_000)
    np.testing.assert_allclose(short, long[:, :100], atol=1e-6)


def test_stays_sharded_by_clip():
    devices = jax.device_count()
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    waveforms = jax.device_put(jnp.zeros((devices, 3200)), rows)
    lengths = jax.device_put(jnp.full(devices, 3200), rows)
    compiled = device_log_mel.lower(waveforms, lengths, mel_bins=80).compile()
    assert "all-gather" not in compiled.as_text()
    assert compiled(waveforms, lengths).sharding.is_equivalent_to(rows, 3)


@pytest.mark.parametrize("size", [0, 200, FULL + 160])
def test_refuses_sizes_without_whole_frames(size):
    with pytest.raises(ValueError, match=f"{size} samples"):
        log_mel(jnp.zeros((1, size)), jnp.zeros(1, int), 80)
