"""G completions of each prompt: sound encoded and prompt prefilled once, then a jitted decode loop."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sari_jax.generate.sampling import Sampler, sample
from sari_jax.models.audio_lm import AudioLM, Params, Prompts, bind
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.decoder import KeyValues


@flax.struct.dataclass
class Completions:
    """What was sampled.

    Attributes:
        tokens: [B, G, T] ids, the end token included, `pad_id` after it.
        logprobs: [B, G, T] of each token under the sampling policy, 0 after the end.
        lengths: [B, G] tokens up to and with the end token.
        ended: [B, G] whether an end token came before the limit.
    """

    tokens: Int[Array | np.ndarray, "B G T"]
    logprobs: Float[Array | np.ndarray, "B G T"]
    lengths: Int[Array | np.ndarray, "B G"]
    ended: Bool[Array | np.ndarray, "B G"]

    @property
    def mask(self) -> Bool[Array, "B G T"]:
        return jnp.arange(self.tokens.shape[-1]) < self.lengths[..., None]


@flax.struct.dataclass
class _State:
    step: Int[Array, ""]
    hidden: Float[Array, "B G E"]  # predicts the token of this step
    own: KeyValues
    tokens: Int[Array, "B G T"]
    logprobs: Float[Array, "B G T"]
    lengths: Int[Array, "B G"]
    ended: Bool[Array, "B G"]


@functools.partial(jax.jit, static_argnums=(0, 1))
def rollout(
    config: AudioLMConfig,
    sampler: Sampler,
    params: Params,
    prompts: Prompts,
    seeds: Int[Array, "B"],
    key: Array,
    features: Float[Array, "B A F D"] | None = None,
) -> Completions:
    """Samples `sampler.completions` completions of every prompt.

    The noise of a completion comes from (key, its prompt's seed, its place in the group, the step) alone:
    a prompt gives the same completions whatever stands beside it in the batch.

    Args:
        seeds: one integer per prompt, for instance its number in the dataset.
        key: fold the training step into it; the same key gives the same completions.
        features: the tower's output where it is known already.
    """
    model = bind(config, params)
    hidden, prefix = model.prefill(prompts, features)
    b, g, t = prompts.tokens.shape[0], sampler.completions, sampler.max_tokens
    layers, _, _, kv_heads, head_dim = prefix.keys.shape
    empty = jnp.zeros((layers, b, g, t, kv_heads, head_dim), prefix.keys.dtype)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, seeds)
    keys = jax.vmap(lambda k: jax.vmap(jax.random.fold_in, (None, 0))(k, jnp.arange(g)))(keys)

    state = _State(
        step=jnp.zeros((), jnp.int32),
        hidden=jnp.broadcast_to(hidden[:, None], (b, g, hidden.shape[-1])),
        own=KeyValues(empty, empty),
        tokens=jnp.full((b, g, t), sampler.pad_id, jnp.int32),
        logprobs=jnp.zeros((b, g, t), jnp.float32),
        lengths=jnp.zeros((b, g), jnp.int32),
        ended=jnp.zeros((b, g), bool),
    )
    advance = functools.partial(
        _advance, model, sampler, prompts.lengths, prefix, keys.reshape(b * g)
    )
    running = lambda state: (state.step < t) & ~state.ended.all()  # noqa: E731
    state = jax.lax.while_loop(running, advance, state)
    return Completions(state.tokens, state.logprobs, state.lengths, state.ended)


def _advance(
    model: AudioLM,
    sampler: Sampler,
    prompt_lengths: Int[Array, "B"],
    prefix: KeyValues,
    keys: Array,
    state: _State,
) -> _State:
    """Chooses this step's tokens and computes the hidden states that predict the next ones."""
    b, g, e = state.hidden.shape
    logits = model.decoder.logits(state.hidden.reshape(b * g, e))
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, state.step)
    tokens, logprobs = (part.reshape(b, g) for part in sample(sampler, logits, step_keys))
    live = ~state.ended
    tokens = jnp.where(live, tokens, sampler.pad_id)
    hidden, own = model.decoder.decode(
        model.decoder.embed(tokens), state.step, prompt_lengths, prefix, state.own
    )
    return _State(
        step=state.step + 1,
        hidden=hidden,
        own=own,
        tokens=state.tokens.at[:, :, state.step].set(tokens),
        logprobs=state.logprobs.at[:, :, state.step].set(jnp.where(live, logprobs, 0.0)),
        lengths=state.lengths + live,
        ended=state.ended | jnp.isin(tokens, jnp.asarray(sampler.end_ids, jnp.int32)) & live,
    )


@functools.partial(jax.jit, static_argnums=0)
def encode(config: AudioLMConfig, params: Params, prompts: Prompts) -> Float[Array, "B A F D"]:
    """The tower's features, for the callers that use them more than once."""
    return bind(config, params).encode(prompts)
