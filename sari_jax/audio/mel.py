"""Waveforms to log-mel spectrograms, on the device: Whisper's front end.

The results equal those of transformers' WhisperFeatureExtractor, which pads every clip to 30 s first. Here waveforms
are only padded to their batch's bucket: silence follows a clip's end in both.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from transformers.audio_utils import mel_filter_bank

from sari_jax.audio.spans import SAMPLE_RATE

# Samples of an STFT window, and from one window to the next.
WINDOW = 400
HOP = 160
# Samples that Whisper pads every clip to.
FULL = 30 * SAMPLE_RATE


def log_mel(
    waveforms: Float[Array, "N S"], lengths: Int[Array, "N"], mel_bins: int, full: int = FULL
) -> Float[Array, "N M T"]:
    """log10 mel power, clipped 8 decades below each clip's maximum, then (x + 4) / 4.

    The Fourier transform is a matrix product in full float32. Accelerators compute it faster than a 400-point FFT, for
    which XLA would also gather a sharded batch on every device. On two cores it takes 25 ms for 30 s of audio.

    Args:
        waveforms: 16 kHz; S a multiple of 160 and at most `full`.
        lengths: samples of each clip; samples after them are taken as silence.
        full: samples that the feature extractor pads every clip to.

    Returns:
        T = S / 160 frames of 10 ms.
    """
    size = waveforms.shape[1]
    if size % HOP or not HOP <= size <= full:
        raise ValueError(f"{size} samples: not a multiple of {HOP} from {HOP} to {full}")
    x = jnp.where(jnp.arange(size) < lengths[:, None], waveforms, 0.0)
    exact = jax.lax.Precision.HIGHEST
    framed = _frames(x, full)
    # Cosines are symmetric about a window's middle and sines antisymmetric, so half of the products suffice. The
    # shorter sums also round less. The window is zero at its first sample.
    middle, left, right = framed[..., 200:201], framed[..., 1:200], framed[..., :200:-1]
    even = jnp.concatenate([left + right, middle], axis=-1)
    odd = left - right
    cos, sin = (
        jnp.matmul(x, part, precision=exact)
        for x, part in zip((even, odd), _fourier(), strict=True)
    )
    mel = jnp.matmul(cos**2 + sin**2, _filters(mel_bins), precision=exact)
    log = jnp.log10(jnp.maximum(mel, 1e-10))
    log = jnp.maximum(log, log.max(axis=(1, 2), keepdims=True) - 8.0)
    return jnp.swapaxes((log[:, : size // HOP] + 4.0) / 4.0, 1, 2)


def _frames(x: Float[Array, "N S"], full: int) -> Float[Array, "N F 400"]:
    """The windows of 400 samples centred on every 160th sample, with silence after the clip.

    The windows of up to two frames after the clip's own still contain its last samples. These frames belong to the
    silence, but they count for the clip's maximum. So F is T + 2, or less next to the full size, where frames end.
    """
    n, size = x.shape
    half = WINDOW // 2
    count = min(size // HOP + 2, full // HOP)
    # The extractor reflects a clip of the full size at both ends. A shorter clip ends in silence.
    if size == full:
        x = jnp.pad(x, ((0, 0), (half, half)), mode="reflect")
    else:
        x = jnp.pad(x, ((0, 0), (0, WINDOW + 2 * HOP)))
        x = jnp.pad(x, ((0, 0), (half, 0)), mode="reflect")
    # A window is five blocks of 80 samples, and the next window starts two blocks later: a reshape, not a gather.
    blocks = x[:, : (2 * count + 3) * 80].reshape(n, -1, 80)
    return jnp.concatenate([blocks[:, i : i + 2 * count : 2] for i in range(5)], axis=-1)


@functools.cache
def _fourier() -> tuple[Float[np.ndarray, "200 201"], Float[np.ndarray, "199 201"]]:
    """Periodic Hann window times the real DFT's cosines and sines, of samples 1 to 200 and 1 to 199."""
    time = np.arange(WINDOW)
    bins = np.arange(WINDOW // 2 + 1)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * time / WINDOW)
    angle = 2 * np.pi * (np.outer(time, bins) % WINDOW) / WINDOW
    cos = window[:, None] * np.cos(angle)
    sin = window[:, None] * np.sin(angle)
    return cos[1:201].astype(np.float32), sin[1:200].astype(np.float32)


@functools.cache
def _filters(mel_bins: int) -> Float[np.ndarray, "201 M"]:
    """Slaney mel filters with area normalisation, 0 to 8 kHz."""
    filters = mel_filter_bank(
        WINDOW // 2 + 1,
        mel_bins,
        0.0,
        SAMPLE_RATE / 2,
        SAMPLE_RATE,
        norm="slaney",
        mel_scale="slaney",
    )
    return filters.astype(np.float32)
