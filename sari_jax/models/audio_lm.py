"""The whole network: waveforms and tokens in, hidden states out.

A prompt is [B, ...]; its completions are [B, G, ...] and hang off it. `Prompts` is what the data pipeline
makes and every step takes; the functions here are pure in (params, prompts), with the network's structure
fixed by a frozen config.
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from sari_jax.models import layers as nn
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.decoder import Decoder, KVCache
from sari_jax.models.encoder import Encoder
from sari_jax.models.lora import adapt
from sari_jax.models.quantized import add_scales
from sari_jax.parallel.mesh import constrain

Params = dict[str, Any]
Leaf = Array | np.ndarray | jax.ShapeDtypeStruct  # on the device, on the host, or a shape alone


@flax.struct.dataclass
class Prompts:
    """A batch of prompts with their sound.

    Attributes:
        tokens: [B, P] ids, padded on the right.
        lengths: [B] how many of them are real; at least 1.
        audio_index: [B, P] where a token stands for sound: audio * F + frame among the row's features;
            -1 for text. F is waveform samples / 640.
        waveforms: [B, A, S] float32 at 16 kHz, zero past each clip's end.
        samples: [B, A] how many of S are real; 0 for a slot without a clip.
    """

    tokens: Int[Leaf, "B P"]
    lengths: Int[Leaf, "B"]
    audio_index: Int[Leaf, "B P"]
    waveforms: Float[Leaf, "B A S"]
    samples: Int[Leaf, "B A"]


class AudioLM(nnx.Module):
    def __init__(self, config: AudioLMConfig, rngs: nnx.Rngs):
        self.config = config
        encoder, decoder, dtype = config.encoder, config.decoder, config.dtype
        self.tower = Encoder(config, rngs)
        self.projector = nn.linear(encoder.width, decoder.width, bias=True, dtype=dtype, rngs=rngs)
        self.decoder = Decoder(config, rngs)
        if config.adapter:
            adapt(self, config.adapter, rngs.params())
        if config.quantized:
            add_scales(self)

    def encode(self, prompts: Prompts) -> Float[Array, "B A F D"]:
        """The tower's features of every clip. With a frozen tower, compute them once and pass them on."""
        b, a, s = prompts.waveforms.shape
        features = self.tower(prompts.waveforms.reshape(b * a, s), prompts.samples.reshape(b * a))
        return features.reshape(b, a, *features.shape[1:])

    def embed(
        self, prompts: Prompts, features: Float[Array, "B A F D"] | None = None
    ) -> Float[Array, "B P E"]:
        """Token embeddings, with projected sound where `audio_index` says so."""
        features = self.encode(prompts) if features is None else features
        sound = constrain(self.projector(features), "batch")
        sound = sound.reshape(sound.shape[0], -1, sound.shape[-1])
        here = jnp.maximum(prompts.audio_index, 0)[..., None]
        sound = jnp.take_along_axis(sound, here, axis=1)
        text = self.decoder.embedded(prompts.tokens)
        return jnp.where(prompts.audio_index[..., None] >= 0, sound, text)

    def prefill(
        self, prompts: Prompts, features: Float[Array, "B A F D"] | None = None
    ) -> tuple[Float[Array, "B E"], KVCache]:
        """Each prompt once: the hidden state that predicts the first new token, and the keys and values."""
        hidden, prompt_cache = self.decoder.prefill(self.embed(prompts, features))
        return last(hidden, prompts.lengths), prompt_cache

    def hidden(
        self,
        prompts: Prompts,
        completions: Int[Array, "B G T"],
        features: Float[Array, "B A F D"] | None = None,
    ) -> Float[Array, "B G T E"]:
        """The final hidden states that predict each completion token, teacher-forced.

        The first comes from the prompt's last position, the others from the completion shifted by one.
        """
        x = self.embed(prompts, features)
        b, g, t = completions.shape
        if t == 1:  # there is nothing to go through the layers with
            first = last(self.decoder.prefill(x)[0], prompts.lengths)
            return jnp.broadcast_to(first[:, None, None], (b, g, 1, x.shape[-1]))
        x, y = self.decoder.extend(x, prompts.lengths, self.decoder.embedded(completions[..., :-1]))
        first = jnp.broadcast_to(last(x, prompts.lengths)[:, None, None], (b, g, 1, x.shape[-1]))
        return jnp.concatenate([first, y], axis=2)

    def prompt_logits(self, prompts: Prompts) -> Float[Array, "B P V"]:
        """Logits at every prompt position: for parity checks and small inputs."""
        return self.decoder.logits(self.decoder.prefill(self.embed(prompts))[0])


def last(hidden: Float[Array, "B P E"], lengths: Int[Array, "B"]) -> Float[Array, "B E"]:
    return jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]


@functools.cache
def _abstract(config: AudioLMConfig) -> tuple[nnx.GraphDef, Params]:
    model = nnx.eval_shape(lambda: AudioLM(config, nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    return graphdef, nnx.to_pure_dict(state)


def abstract_params(config: AudioLMConfig) -> Params:
    """The parameters' nested dict with `jax.ShapeDtypeStruct` leaves; nothing is allocated."""
    return _abstract(config)[1]


def init_params(config: AudioLMConfig, key: Array) -> Params:
    """Random parameters, for tests and for parts that have no pretrained weights."""
    init = jax.jit(lambda key: nnx.to_pure_dict(nnx.state(AudioLM(config, nnx.Rngs(key)))))
    return init(key)


def bind(config: AudioLMConfig, params: Params) -> AudioLM:
    """The network with these parameters, for use inside a jitted function.

    A part that the function does not use may be left out, as decoding leaves out the tower: shapes stand in its place.
    """
    graphdef, shapes = _abstract(config)
    return nnx.merge(graphdef, {**shapes, **params})
