"""The audio towers: log-mel, two convolutions, Whisper encoder layers, pooling over pairs of frames.

A tower runs on as many frames as the longest clip of the batch needs, not on the most it can take: padding is masked
out of every softmax, and a clip's last frames see the same silence past their end. A tower with windows takes each
window for a clip of its own, up to the pooling.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from sari_jax.audio.mel import HOP, SAMPLE_RATE, log_mel
from sari_jax.models import layers as nn
from sari_jax.models.attention import Attend, Context
from sari_jax.models.config import AudioLMConfig, EncoderConfig
from sari_jax.models.kernels import ATTENTION
from sari_jax.parallel.mesh import constrain

# A frame looks at most this far past its clip's end: 200 samples of STFT window, 3 mel frames of the stem.
LOOKAHEAD = 4 * HOP

Counts = Int[Array | np.ndarray, "..."] | int


def frame_counts(samples: Counts) -> tuple[Counts, Counts]:
    """Samples at 16 kHz -> (frames inside the tower, frames out of it), as the Qwen2-Audio processor counts.

    Works alike on numpy arrays, jax arrays and ints.

    >>> frame_counts(480_000)
    (1500, 750)
    """
    mel = -(-samples // HOP)
    inside = (mel - 1) // 2 + 1
    return inside, inside // 2


def gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)  # Whisper uses the exact erf form, not tanh


class EncoderLayer(nnx.Module):
    """Pre-norm bidirectional transformer layer; keys carry no bias (Whisper)."""

    def __init__(self, config: EncoderConfig, dtype: str, rngs: nnx.Rngs):
        width = config.width
        self.heads = config.heads
        self.attention_norm = nn.layer_norm(width, dtype=dtype, rngs=rngs)
        self.q_proj = nn.linear(width, width, bias=True, dtype=dtype, rngs=rngs)
        self.k_proj = nn.linear(width, width, bias=False, dtype=dtype, rngs=rngs)
        self.v_proj = nn.linear(width, width, bias=True, dtype=dtype, rngs=rngs)
        self.o_proj = nn.linear(width, width, bias=True, dtype=dtype, rngs=rngs)
        self.ffn_norm = nn.layer_norm(width, dtype=dtype, rngs=rngs)
        self.up_proj = nn.linear(width, config.ffn, bias=True, dtype=dtype, rngs=rngs)
        self.down_proj = nn.linear(config.ffn, width, bias=True, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "N T D"], visible: Int[Array, "N"], attend: Attend
    ) -> Float[Array, "N T D"]:
        n, t, width = x.shape
        y = self.attention_norm(x)
        q, k, v = (
            proj(y).reshape(n, 1, t, self.heads, width // self.heads)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k, v = (constrain(x, "batch", None, None, "heads") for x in (q, k, v))
        k, v = (jnp.swapaxes(x, 2, 3) for x in (k, v))
        x = constrain(x + self.o_proj(attend(q, (Context(k, v, visible),))[:, 0]), "batch")
        up = constrain(self.up_proj(self.ffn_norm(x)), "batch", None, "ffn")
        return constrain(x + self.down_proj(gelu(up)), "batch")


class Encoder(nnx.Module):
    def __init__(self, whole: AudioLMConfig, rngs: nnx.Rngs):
        self.config, self.remat, dtype = whole.encoder, whole.remat, whole.dtype
        self.attend, self.dtype = ATTENTION[whole.attention], jnp.dtype(dtype)
        config, width = self.config, self.config.width
        conv = dict(kernel_size=3, padding=1, dtype=self.dtype, rngs=rngs)
        self.conv1 = nnx.Conv(config.mel_bins, width, **conv)
        self.conv2 = nnx.Conv(width, width, strides=2, **conv)
        if not config.sinusoids:
            self.positions = nnx.Embed(config.positions, width, dtype=self.dtype, rngs=rngs)
        self.layers = nn.stack(lambda rngs: EncoderLayer(config, dtype, rngs), config.layers, rngs)
        self.norm = nn.layer_norm(width, dtype=dtype, rngs=rngs)

    def __call__(
        self, waveforms: Float[Array, "N S"], lengths: Int[Array, "N"]
    ) -> Float[Array, "N F D"]:
        """16 kHz mono waveforms, zero past `lengths` samples -> features, 25 per second.

        Args:
            waveforms: S is a multiple of 640 samples, at least LOOKAHEAD past the longest clip unless
                it is the tower's full length.
            lengths: samples of each clip; 0 for a row that is padding.

        Returns:
            F = S / 640 frames; only the first `frame_counts(length)[1]` of a row mean anything.
        """
        config = self.config
        full = config.seconds * SAMPLE_RATE
        mel = log_mel(waveforms, lengths, config.mel_bins, full)
        mel = jnp.swapaxes(mel, 1, 2).astype(self.dtype)
        clips, ticks = mel.shape[0], -(-lengths // HOP)
        if config.window:
            mel, ticks = windows(mel, ticks, config.window)
            heard = (jnp.arange(mel.shape[1]) < ticks[:, None])[..., None]
            x = gelu(self.conv1(mel * heard)) * heard
        else:
            x = gelu(self.conv1(mel))
        x = gelu(self.conv2(x))
        x = constrain(x + self._numbered(x.shape[1]), "batch")

        visible = (ticks + 1) // 2
        body = lambda layer, x, _: (layer(x, visible, self.attend), None)  # noqa: E731
        x, _ = nn.scan(self.layers, body, x, remat=self.remat)

        frames = waveforms.shape[1] // (2 * HOP)
        x = x.reshape(clips, -1, config.width)[:, : frames // 2 * 2]
        pairs = x.reshape(clips, frames // 2, 2, config.width)
        return self.norm(pairs.mean(axis=2))

    def _numbered(self, frames: int) -> Float[Array, "T D"]:
        """What is added to the first frames to tell their order."""
        if self.config.sinusoids:
            return jnp.asarray(sinusoids(frames, self.config.width), self.dtype)
        return self.positions(jnp.arange(frames))


def windows(
    mel: Float[Array, "N T M"], counts: Int[Array, "N"], size: int
) -> tuple[Float[Array, "NW size M"], Int[Array, "NW"]]:
    """Splits clips into windows of `size` frames, the last one filled up, and their counts of frames likewise.

    A clip of 250 frames in windows of 200 -> counts 200 and 50.
    """
    n, t, bins = mel.shape
    many = -(-t // size)
    mel = jnp.pad(mel, ((0, 0), (0, many * size - t), (0, 0)))
    starts = size * jnp.arange(many)
    return mel.reshape(n * many, size, bins), jnp.clip(counts[:, None] - starts, 0, size).reshape(
        -1
    )


def sinusoids(count: int, width: int) -> Float[np.ndarray, "count width"]:
    """Sines, then cosines, of geometrically spaced frequencies from 1 to 1/10,000 (Whisper's layout)."""
    rates = np.exp(-np.log(10_000) / (width // 2 - 1) * np.arange(width // 2, dtype=np.float32))
    angles = np.arange(count, dtype=np.float32)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
