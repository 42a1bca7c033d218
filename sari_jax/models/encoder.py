"""The audio towers: log-mel, two convolutions, Whisper encoder layers, pooling over pairs of frames.

A tower runs on as many frames as the longest clip of the batch needs, not on the longest clip that it accepts. This
changes no feature: padding is masked out of every softmax, and the silence after a clip is the same. A tower with
windows treats each window as a separate clip, up to the pooling.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from sari_jax.audio.mel import HOP, log_mel
from sari_jax.audio.spans import SAMPLE_RATE
from sari_jax.models import layers
from sari_jax.models.attention import Attend, Context
from sari_jax.models.config import AudioLMConfig, EncoderConfig
from sari_jax.models.kernels import ATTENTION
from sari_jax.parallel.mesh import constrain

# Samples per feature: a feature is the mean of two frames, and a frame comes from two mel frames.
STRIDE = 4 * HOP
# Samples after a clip's end that its last frames depend on: 200 of the STFT window, and 3 mel frames of the
# convolutions.
LOOKAHEAD = 4 * HOP

Counts = Int[Array | np.ndarray, "..."] | int


def frame_counts(samples: Counts) -> tuple[Counts, Counts]:
    """Samples at 16 kHz -> (frames inside the tower, features that it returns), as the Qwen2-Audio processor counts.

    Takes numpy arrays, jax arrays and ints.

    >>> frame_counts(480_000)
    (1500, 750)
    """
    mel = -(-samples // HOP)
    inside = (mel - 1) // 2 + 1
    return inside, inside // 2


def gelu(x: Array) -> Array:
    """The exact form with erf, which Whisper uses, not the approximation with tanh."""
    return jax.nn.gelu(x, approximate=False)


class EncoderLayer(nnx.Module):
    """Pre-norm bidirectional transformer layer; keys carry no bias (Whisper)."""

    def __init__(self, config: EncoderConfig, dtype: str, rngs: nnx.Rngs):
        width = config.width
        self.heads = config.heads
        self.attention_norm = layers.layer_norm(width, dtype=dtype, rngs=rngs)
        self.q_proj = layers.linear(width, width, bias=True, dtype=dtype, rngs=rngs)
        self.k_proj = layers.linear(width, width, bias=False, dtype=dtype, rngs=rngs)
        self.v_proj = layers.linear(width, width, bias=True, dtype=dtype, rngs=rngs)
        self.o_proj = layers.linear(width, width, bias=True, dtype=dtype, rngs=rngs)
        self.ffn_norm = layers.layer_norm(width, dtype=dtype, rngs=rngs)
        self.up_proj = layers.linear(width, config.ffn, bias=True, dtype=dtype, rngs=rngs)
        self.down_proj = layers.linear(config.ffn, width, bias=True, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "N T D"], visible: Int[Array, "N"], attend: Attend
    ) -> Float[Array, "N T D"]:
        with jax.named_scope("attention"):
            n, t, width = x.shape
            y = self.attention_norm(x)
            q, k, v = (
                proj(y).reshape(n, 1, t, self.heads, width // self.heads)
                for proj in (self.q_proj, self.k_proj, self.v_proj)
            )
            q, k, v = (constrain(x, "batch", None, None, "heads") for x in (q, k, v))
            k, v = (jnp.swapaxes(x, 2, 3) for x in (k, v))
            x = constrain(x + self.o_proj(attend(q, (Context(k, v, visible),))[:, 0]), "batch")
        with jax.named_scope("mlp"):
            up = constrain(self.up_proj(self.ffn_norm(x)), "batch", None, "ffn")
            return constrain(x + self.down_proj(gelu(up)), "batch")


class Encoder(nnx.Module):
    """An audio tower: waveforms -> features."""

    def __init__(self, network: AudioLMConfig, rngs: nnx.Rngs):
        config = network.encoder
        dtype = network.dtype
        width = config.width
        self.config = config
        self.remat = network.remat
        self.attend = ATTENTION[network.attention]
        self.dtype = jnp.dtype(dtype)
        conv = dict(kernel_size=3, padding=1, dtype=self.dtype, rngs=rngs)
        self.conv1 = nnx.Conv(config.mel_bins, width, **conv)
        self.conv2 = nnx.Conv(width, width, strides=2, **conv)
        if not config.sinusoids:
            self.positions = nnx.Embed(config.positions, width, dtype=self.dtype, rngs=rngs)
        self.layers = layers.stack(
            lambda rngs: EncoderLayer(config, dtype, rngs), config.layers, rngs
        )
        self.norm = layers.layer_norm(width, dtype=dtype, rngs=rngs)

    @jax.named_scope("encoder")
    def __call__(
        self, waveforms: Float[Array, "N S"], lengths: Int[Array, "N"]
    ) -> Float[Array, "N F D"]:
        """16 kHz mono waveforms, zero past `lengths` samples -> features, 25 per second.

        Args:
            waveforms: S is a multiple of STRIDE = 640 samples. It exceeds the longest clip by LOOKAHEAD or more, unless
                it is the tower's full length.
            lengths: samples of each clip; 0 for a row that is padding.

        Returns:
            F = S / 640 features; only the first `frame_counts(length)[1]` of a row are valid.
        """
        config = self.config
        mel = log_mel(waveforms, lengths, config.mel_bins, config.seconds * SAMPLE_RATE)
        mel = jnp.swapaxes(mel, 1, 2).astype(self.dtype)
        clips = mel.shape[0]
        mel_counts = -(-lengths // HOP)
        if config.window:
            mel, mel_counts = windows(mel, mel_counts, config.window)
            inside = (jnp.arange(mel.shape[1]) < mel_counts[:, None])[..., None]
            x = gelu(self.conv1(mel * inside)) * inside
        else:
            x = gelu(self.conv1(mel))
        x = gelu(self.conv2(x))
        x = constrain(x + self._position_embeddings(x.shape[1]), "batch")
        visible = (mel_counts + 1) // 2

        def body(layer: EncoderLayer, x: Array, _: None) -> tuple[Array, None]:
            return layer(x, visible, self.attend), None

        x, _ = layers.scan(self.layers, body, x, remat=self.remat)

        frames = waveforms.shape[1] // (2 * HOP)
        x = x.reshape(clips, -1, config.width)[:, : frames // 2 * 2]
        pairs = x.reshape(clips, frames // 2, 2, config.width)
        return self.norm(pairs.mean(axis=2))

    def _position_embeddings(self, frames: int) -> Float[Array, "T D"]:
        if self.config.sinusoids:
            return jnp.asarray(sinusoids(frames, self.config.width), self.dtype)
        return self.positions(jnp.arange(frames))


def windows(
    mel: Float[Array, "N T M"], counts: Int[Array, "N"], size: int
) -> tuple[Float[Array, "NW size M"], Int[Array, "NW"]]:
    """Splits clips into windows of `size` mel frames, and their counts of frames with them. The last window is padded.

    A clip of 250 frames in windows of 200 -> windows of 200 and 50 frames.
    """
    n, t, bins = mel.shape
    num_windows = -(-t // size)
    mel = jnp.pad(mel, ((0, 0), (0, num_windows * size - t), (0, 0)))
    starts = size * jnp.arange(num_windows)
    window_counts = jnp.clip(counts[:, None] - starts, 0, size)
    return mel.reshape(n * num_windows, size, bins), window_counts.reshape(-1)


def sinusoids(count: int, width: int) -> Float[np.ndarray, "count width"]:
    """Sines, then cosines, of geometrically spaced frequencies from 1 to 1/10,000 (Whisper's layout)."""
    rates = np.exp(-np.log(10_000) / (width // 2 - 1) * np.arange(width // 2, dtype=np.float32))
    angles = np.arange(count, dtype=np.float32)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
