"""Waveforms to log-mel spectrograms, on the device: Whisper's front end.

Equal to transformers' WhisperFeatureExtractor, which pads every clip to 30 s first, though the waveforms here are
only padded to their batch's bucket: what follows a clip's end is silence in both.
"""

import functools

import jax
import jax.numpy as jnp
import librosa
import numpy as np
from jaxtyping import Array, Float, Int

SAMPLE_RATE, WINDOW, HOP = 16_000, 400, 160
FULL = 30 * SAMPLE_RATE


@functools.cache
def _filters(mel_bins: int) -> Float[np.ndarray, "201 M"]:
    """Slaney mel filters with area normalisation, 0 to 8 kHz."""
    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=WINDOW, n_mels=mel_bins).T.astype(np.float32)


@functools.cache
def _fourier() -> tuple[Float[np.ndarray, "400 201"], Float[np.ndarray, "400 201"]]:
    """Periodic Hann window times the real DFT's cosines and sines: frames @ these = the windowed spectrum."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    angle = 2 * np.pi * np.outer(np.arange(WINDOW), np.arange(WINDOW // 2 + 1)) / WINDOW
    return (
        (window[:, None] * np.cos(angle)).astype(np.float32),
        (window[:, None] * np.sin(angle)).astype(np.float32),
    )


def log_mel(
    waveforms: Float[Array, "N S"], lengths: Int[Array, "N"], mel_bins: int
) -> Float[Array, "N M T"]:
    """log10 mel power, clipped 8 decades below each clip's maximum, then (x + 4) / 4.

    The transform is a matrix product, which accelerators prefer to a 400-point FFT, in full float32 precision.

    Args:
        waveforms: 16 kHz; S a multiple of 160 and at most 480,000.
        lengths: samples of each clip; what lies past them is taken as silence.

    Returns:
        T = S / 160 frames of 10 ms.
    """
    n, size = waveforms.shape
    frames, half = size // HOP, WINDOW // 2
    x = jnp.where(jnp.arange(size) < lengths[:, None], waveforms, 0.0)
    # The STFT is centred: reflected at the start; at the end reflected at 30 s and silent before that.
    tail = x[:, -half - 1 : -1][:, ::-1] if size == FULL else jnp.zeros((n, half), x.dtype)
    x = jnp.concatenate([x[:, 1 : half + 1][:, ::-1], x, tail], axis=1)
    # 400-sample windows every 160: five blocks of 80 each, so that framing is a reshape and no gather.
    blocks = x[:, : (2 * frames + 3) * 80].reshape(n, -1, 80)
    framed = jnp.concatenate([blocks[:, i : i + 2 * frames : 2] for i in range(5)], axis=-1)

    exact = jax.lax.Precision.HIGHEST
    cos, sin = (jnp.matmul(framed, part, precision=exact) for part in _fourier())
    mel = jnp.matmul(cos**2 + sin**2, _filters(mel_bins), precision=exact)
    log = jnp.log10(jnp.maximum(mel, 1e-10))
    log = jnp.maximum(log, log.max(axis=(1, 2), keepdims=True) - 8.0)
    return jnp.swapaxes((log + 4.0) / 4.0, 1, 2)
