"""Qwen2-Audio's tower: log-mel, two convolutions, Whisper encoder layers, pooling over pairs of frames.

The tower runs on as many frames as the longest clip of the batch needs, not on 30 s: padding is masked
out of every softmax, and a clip's last frames see the same silence past their end as they would in 30 s.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from sari_jax.audio.mel import HOP, log_mel
from sari_jax.models import layers as nn
from sari_jax.models.attention import Context, attend
from sari_jax.models.config import EncoderConfig

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

    def __call__(self, x: Float[Array, "N T D"], mask: Array) -> Float[Array, "N T D"]:
        n, t, width = x.shape
        y = self.attention_norm(x)
        q, k, v = (
            proj(y).reshape(n, 1, t, self.heads, width // self.heads)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        x = x + self.o_proj(attend(q, (Context(k, v, mask),))[:, 0])
        return x + self.down_proj(gelu(self.up_proj(self.ffn_norm(x))))


class Encoder(nnx.Module):
    def __init__(self, config: EncoderConfig, dtype: str, rngs: nnx.Rngs):
        self.config, self.dtype = config, jnp.dtype(dtype)
        width = config.width
        conv = dict(kernel_size=3, padding=1, dtype=self.dtype, rngs=rngs)
        self.conv1 = nnx.Conv(config.mel_bins, width, **conv)
        self.conv2 = nnx.Conv(width, width, strides=2, **conv)
        self.positions = nnx.Embed(config.max_frames, width, dtype=self.dtype, rngs=rngs)
        self.layers = nn.stack(lambda rngs: EncoderLayer(config, dtype, rngs), config.layers, rngs)
        self.norm = nn.layer_norm(width, dtype=dtype, rngs=rngs)

    def __call__(
        self, waveforms: Float[Array, "N S"], lengths: Int[Array, "N"]
    ) -> Float[Array, "N F D"]:
        """16 kHz mono waveforms, zero past `lengths` samples -> features, 25 per second.

        Args:
            waveforms: S is a multiple of 640 samples, at least LOOKAHEAD past the longest clip unless
                it is the tower's full length (30 s).
            lengths: samples of each clip; 0 for a row that is padding.

        Returns:
            F = S / 640 frames; only the first `frame_counts(length)[1]` of a row mean anything.
        """
        mel = log_mel(waveforms, lengths, self.config.mel_bins)
        x = jnp.swapaxes(mel, 1, 2).astype(self.dtype)
        x = gelu(self.conv2(gelu(self.conv1(x))))
        frames = x.shape[1]
        x = x + self.positions(jnp.arange(frames))

        inside, _ = frame_counts(lengths)
        mask = (jnp.arange(frames) < inside[:, None])[:, None, None]
        x, _ = nn.scan(self.layers, lambda layer, x, _: (layer(x, mask), None), x, remat=True)

        pairs = x[:, : frames // 2 * 2].reshape(x.shape[0], frames // 2, 2, -1)
        return self.norm(pairs.mean(axis=2))
