"""The whole network: waveforms and tokens in, hidden states out.

Prompts are [B, ...] and their completions [B, G, ...]: G completions share one prompt. The data pipeline makes
`Prompts`, and every step takes them. The functions here are pure in (params, prompts); a frozen config fixes the
network's structure.
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from sari_jax.models import layers
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.decoder import Decoder, KVCache
from sari_jax.models.encoder import Encoder
from sari_jax.models.lora import add_adapters
from sari_jax.models.quantized import add_scales
from sari_jax.parallel.mesh import constrain

Params = dict[str, Any]
# An array on the device, an array on the host, or a shape without an array.
Leaf = Array | np.ndarray | jax.ShapeDtypeStruct


@flax.struct.dataclass
class Prompts:
    """A batch of prompts with their audio.

    Attributes:
        tokens: [B, P] ids, padded on the right.
        lengths: [B] tokens without padding; at least 1.
        audio_index: [B, P, 2] for a token that stands for audio, its clip and the frame of the clip's features; -1 for
            text.
        waveforms: [B, A, S] float32 at 16 kHz, zero after each clip's end.
        samples: [B, A] samples of each clip without padding; 0 for a slot without a clip.
    """

    tokens: Int[Leaf, "B P"]
    lengths: Int[Leaf, "B"]
    audio_index: Int[Leaf, "B P 2"]
    waveforms: Float[Leaf, "B A S"]
    samples: Int[Leaf, "B A"]


class AudioLM(nnx.Module):
    """Audio tower, projector and decoder."""

    def __init__(self, config: AudioLMConfig, rngs: nnx.Rngs):
        self.config = config
        encoder, decoder, dtype = config.encoder, config.decoder, config.dtype
        self.tower = Encoder(config, rngs)
        self.projector = layers.linear(
            encoder.width, decoder.width, bias=True, dtype=dtype, rngs=rngs
        )
        self.decoder = Decoder(config, rngs)
        if config.adapter:
            add_adapters(self, config.adapter, rngs.params())
        if config.quantized:
            add_scales(self)

    def encode(self, prompts: Prompts) -> Float[Array, "B A F D"]:
        """The tower's features of every clip. If the tower is frozen, compute them once and pass them on."""
        b, a, s = prompts.waveforms.shape
        features = self.tower(prompts.waveforms.reshape(b * a, s), prompts.samples.reshape(b * a))
        return features.reshape(b, a, *features.shape[1:])

    def embed(
        self, prompts: Prompts, features: Float[Array, "B A F D"] | None = None
    ) -> Float[Array, "B P E"]:
        """Token embeddings, with projected audio features in place of audio tokens."""
        features = self.encode(prompts) if features is None else features
        audio = constrain(self.projector(features), "batch")
        clip, frame = prompts.audio_index[..., :1], prompts.audio_index[..., 1:]
        index = jnp.maximum(clip * audio.shape[2] + frame, 0)
        audio = audio.reshape(audio.shape[0], -1, audio.shape[-1])
        audio = jnp.take_along_axis(audio, index, axis=1)
        text = self.decoder.embed_tokens(prompts.tokens)
        return jnp.where(clip >= 0, audio, text)

    def prefill(
        self, prompts: Prompts, features: Float[Array, "B A F D"] | None = None
    ) -> tuple[Float[Array, "B E"], KVCache]:
        """Runs each prompt once: returns the hidden state that predicts its first new token, and the prompt cache."""
        hidden, prompt_cache = self.decoder.prefill(self.embed(prompts, features))
        return last(hidden, prompts.lengths), prompt_cache

    def hidden(
        self,
        prompts: Prompts,
        completions: Int[Array, "B G T"],
        features: Float[Array, "B A F D"] | None = None,
    ) -> Float[Array, "B G T E"]:
        """The final hidden states that predict each completion token, teacher-forced.

        The first token is predicted at the prompt's last position, each later one at the completion token before it.
        """
        x = self.embed(prompts, features)
        b, g, t = completions.shape
        # The prompt predicts the only token: no completion token goes through the layers.
        if t == 1:
            first = last(self.decoder.prefill(x)[0], prompts.lengths)
            return jnp.broadcast_to(first[:, None, None], (b, g, 1, x.shape[-1]))
        y = self.decoder.embed_tokens(completions[..., :-1])
        x, y = self.decoder.extend(x, prompts.lengths, y)
        first = jnp.broadcast_to(last(x, prompts.lengths)[:, None, None], (b, g, 1, x.shape[-1]))
        return jnp.concatenate([first, y], axis=2)

    def prompt_logits(self, prompts: Prompts) -> Float[Array, "B P V"]:
        """Logits at every prompt position, for parity checks and small inputs."""
        return self.decoder.logits(self.decoder.prefill(self.embed(prompts))[0])


def last(hidden: Float[Array, "B P E"], lengths: Int[Array, "B"]) -> Float[Array, "B E"]:
    """The hidden state of each prompt's last token."""
    return jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]


@functools.cache
def _abstract(config: AudioLMConfig) -> tuple[nnx.GraphDef, Params]:
    model = nnx.eval_shape(lambda: AudioLM(config, nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    return graphdef, nnx.to_pure_dict(state)


def abstract_params(config: AudioLMConfig) -> Params:
    """The parameters' nested dict with `jax.ShapeDtypeStruct` leaves. Nothing is allocated."""
    return _abstract(config)[1]


def init_params(config: AudioLMConfig, key: Array) -> Params:
    """Random parameters, for tests and for modules without pretrained weights."""
    init = jax.jit(lambda key: nnx.to_pure_dict(nnx.state(AudioLM(config, nnx.Rngs(key)))))
    return init(key)


def bind(config: AudioLMConfig, params: Params) -> AudioLM:
    """The network with these parameters, for use inside a jitted function.

    `params` may lack modules that the function does not use, as decoding leaves out the tower: their shapes take their
    places.
    """
    graphdef, shapes = _abstract(config)
    return nnx.merge(graphdef, {**shapes, **params})
