"""Samples G completions of each prompt: audio is encoded and prompts are prefilled once, then a jitted loop decodes.

prefill    the prompt cache, and each prompt's last hidden state
decode     for each stage (all rows, 3/4 of them, 1/2, ...): while rows are active, sample a token of each and run
           it through the decoder; then drop the finished rows
"""

import functools
import math

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sari_jax.generate.sampling import Sampler, sample
from sari_jax.models.audio_lm import AudioLM, Leaf, Params, Prompts, bind
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.decoder import ActiveSequences, KVCache
from sari_jax.parallel.mesh import constrain, num_data_shards

# Shares of the rows that are decoded, from stage to stage, as completions finish. If lengths are geometric with a mean
# of 0.4 of the limit, about a sixth of the work is wasted. Each stage compiles the loop once more, which is not worth
# it for as few steps as SHORT.
STAGES = (1, 3 / 4, 1 / 2, 3 / 8, 1 / 4, 1 / 8)
SHORT = 48


@flax.struct.dataclass
class Completions:
    """The sampled completions of a batch of prompts.

    Attributes:
        tokens: [B, G, T] ids, the end token included, then `pad_id`.
        logprobs: [B, G, T] log-probability of each token under the sampling policy, 0 after the end.
        lengths: [B, G] tokens of each completion, its end token included.
        done: [B, G] whether the completion ended before the limit, with an end token.
        rows_decoded: rows that were decoded, summed over all steps, finished rows included. sum(lengths) / rows_decoded
            is the useful share of decoding. The product with the prompt's keys is not counted. None after resharding.
    """

    tokens: Int[Leaf, "B G T"]
    logprobs: Float[Leaf, "B G T"]
    lengths: Int[Leaf, "B G"]
    done: Bool[Leaf, "B G"]
    rows_decoded: Int[Leaf, ""] | None = None

    @property
    def mask(self) -> Bool[Array, "B G T"]:
        """True for tokens that belong to the completions, end tokens included."""
        return jnp.arange(self.tokens.shape[-1]) < self.lengths[..., None]


@flax.struct.dataclass
class _State:
    """The state of the decode loop, over I data shards with R completions each, of which N rows are active.

    Attributes:
        step: the index of the token that is sampled next, from 0.
        rows_decoded: the number of rows decoded so far, summed over steps.
        rows: the completion of each active row.
        hidden: the final hidden state of each active row, which predicts its next token.
        completion_cache: keys and values of the active rows, [L, I, N, K, T, D].
        tokens: sampled tokens of all completions, then `pad_id`.
        logprobs: their log-probabilities, then 0.
        lengths: tokens of each completion so far.
        done: whether the completion has ended.
    """

    step: Int[Array, ""]
    rows_decoded: Int[Array, ""]
    rows: ActiveSequences
    hidden: Float[Array, "I N E"]
    completion_cache: KVCache
    tokens: Int[Array, "I R T"]
    logprobs: Float[Array, "I R T"]
    lengths: Int[Array, "I R"]
    done: Bool[Array, "I R"]


def rollout(
    config: AudioLMConfig,
    sampler: Sampler,
    params: Params,
    prompts: Prompts,
    seeds: Int[Array, "B"],
    key: Array,
    features: Float[Array, "B A F D"] | None = None,
) -> Completions:
    """Samples `sampler.num_completions` completions of every prompt.

    A completion's random numbers depend only on (key, its prompt's seed, its index in the group, the step). So a prompt
    has the same completions in any batch.

    Finished completions are dropped: when the active rows fit the next of `STAGES`, they are moved together and only
    they are decoded. A completion never changes its data shard.

    Args:
        params: over several devices, in the shardings of `DecodingPolicy`. In others, each token gathers them.
        seeds: one integer per prompt, for instance its index in the dataset.
        key: fold the training step into it. The same key gives the same completions.
        features: the tower's output, if it is already computed.
    """
    hidden, prompt_cache = prefill(config, params, prompts, features)
    return decode(config, sampler, params, prompts.lengths, hidden, prompt_cache, seeds, key)


@functools.partial(jax.jit, static_argnums=0)
def prefill(
    config: AudioLMConfig,
    params: Params,
    prompts: Prompts,
    features: Float[Array, "B A F D"] | None = None,
) -> tuple[Float[Array, "B E"], KVCache]:
    """Runs each prompt once: returns the hidden state that predicts its first new token, and the prompt cache."""
    hidden, prompt_cache = bind(config, params).prefill(prompts, features)
    return hidden, jax.tree.map(lambda x: constrain(x, None, "batch", "heads"), prompt_cache)


@functools.partial(jax.jit, static_argnums=(0, 1))
def decode(
    config: AudioLMConfig,
    sampler: Sampler,
    params: Params,
    lengths: Int[Array, "B"],
    hidden: Float[Array, "B E"],
    prompt_cache: KVCache,
    seeds: Int[Array, "B"],
    key: Array,
) -> Completions:
    """Samples the completions of prefilled prompts of these lengths: see `rollout`."""
    model = bind(config, params)
    batch = lengths.shape[0]
    group = sampler.num_completions
    state = _initial_state(sampler, hidden, prompt_cache)
    size = state.rows.size
    keys = _completion_keys(key, seeds, group).reshape(-1, size)
    sample_step = functools.partial(_sample_step, model, sampler, lengths, prompt_cache, keys)

    stages = STAGES if sampler.max_tokens > SHORT else STAGES[:1]
    counts = sorted({math.ceil(size * stage) for stage in stages}, reverse=True)
    for count, next_count in zip(counts, [*counts[1:], 0], strict=True):
        state = _keep_active(state, count)

        def keep_going(state: _State, next_count: int = next_count) -> Bool[Array, ""]:
            """Whether steps are left, and some shard has more active rows than the next stage decodes."""
            active = (~state.done).sum(axis=1).max()
            return (state.step < sampler.max_tokens) & (active > next_count)

        state = jax.lax.while_loop(keep_going, sample_step, state)

    def by_group(x: Array) -> Array:
        """[I, R, ...] -> [B, G, ...]"""
        return constrain(x.reshape(batch, group, *x.shape[2:]), "batch")

    return Completions(
        tokens=by_group(state.tokens),
        logprobs=by_group(state.logprobs),
        lengths=by_group(state.lengths),
        done=by_group(state.done),
        rows_decoded=state.rows_decoded,
    )


def _completion_keys(key: Array, seeds: Int[Array, "B"], group: int) -> Array:
    """One key for each completion, [B, G], from its prompt's seed and its index in the group."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, seeds)
    return jax.vmap(lambda k: jax.vmap(jax.random.fold_in, (None, 0))(k, jnp.arange(group)))(keys)


def _initial_state(sampler: Sampler, hidden: Float[Array, "B E"], prompt_cache: KVCache) -> _State:
    """The state before the first step: every completion is active and empty."""
    shards = num_data_shards()
    size = hidden.shape[0] * sampler.num_completions // shards
    length = sampler.max_tokens
    rows = ActiveSequences(
        places=jnp.broadcast_to(jnp.arange(size), (shards, size)),
        size=size,
        group=sampler.num_completions,
    )
    layers, _, kv_heads, _, head_dim = prompt_cache.keys.shape
    empty = jnp.zeros((layers, shards, size, kv_heads, length, head_dim), prompt_cache.keys.dtype)
    empty = constrain(empty, None, "batch", None, "heads")
    return _State(
        step=jnp.zeros((), jnp.int32),
        rows_decoded=jnp.zeros((), jnp.int32),
        rows=rows,
        hidden=rows.from_prompt(hidden),
        completion_cache=KVCache(keys=empty, values=empty),
        tokens=jnp.full((shards, size, length), sampler.pad_id, jnp.int32),
        logprobs=jnp.zeros((shards, size, length), jnp.float32),
        lengths=jnp.zeros((shards, size), jnp.int32),
        done=jnp.zeros((shards, size), bool),
    )


def _keep_active(state: _State, count: int) -> _State:
    """Keeps `count` rows of each shard: all that are not done, then the first of those that are."""
    rows = state.rows
    if rows.places.shape[1] == count:
        return state
    kept = jnp.argsort(rows.select(state.done), axis=1, stable=True)[:, :count]
    take = jax.vmap(lambda shard, indices: shard[indices])

    def take_cache(x: Array) -> Array:
        return constrain(jax.vmap(take, (0, None))(x, kept), None, "batch", None, "heads")

    return state.replace(
        rows=rows.replace(places=take(rows.places, kept)),
        hidden=take(state.hidden, kept),
        completion_cache=jax.tree.map(take_cache, state.completion_cache),
    )


def _sample_step(
    model: AudioLM,
    sampler: Sampler,
    prompt_lengths: Int[Array, "B"],
    prompt_cache: KVCache,
    keys: Array,
    state: _State,
) -> _State:
    """Samples one token of each active row and computes the hidden state that predicts its next one."""
    rows = state.rows
    i, n, e = state.hidden.shape
    logits = model.decoder.logits(state.hidden.reshape(i * n, e))
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(rows.select(keys).reshape(-1), state.step)
    tokens, logprobs = (part.reshape(i, n) for part in sample(sampler, logits, step_keys))
    active = ~rows.select(state.done)
    tokens = jnp.where(active, tokens, sampler.pad_id)
    hidden, completion_cache = model.decoder.decode(
        model.decoder.embed_tokens(tokens),
        rows,
        state.step,
        prompt_lengths,
        prompt_cache,
        state.completion_cache,
    )
    ended = active & jnp.isin(tokens, jnp.asarray(sampler.end_ids, jnp.int32))

    def write(buffer: Array, values: Array) -> Array:
        """Writes the active rows' values at this step."""
        column = rows.scatter(buffer[..., state.step], values)
        return jax.lax.dynamic_update_index_in_dim(buffer, column, state.step, axis=2)

    return state.replace(
        step=state.step + 1,
        rows_decoded=state.rows_decoded + i * n,
        hidden=hidden,
        completion_cache=completion_cache,
        tokens=write(state.tokens, tokens),
        logprobs=write(state.logprobs, jnp.where(active, logprobs, 0.0)),
        lengths=rows.scatter(state.lengths, rows.select(state.lengths) + active),
        done=rows.scatter(state.done, rows.select(state.done) | ended),
    )


@functools.partial(jax.jit, static_argnums=0)
def encode(config: AudioLMConfig, params: Params, prompts: Prompts) -> Float[Array, "B A F D"]:
    """The tower's features, for callers that use them more than once."""
    return bind(config, params).encode(prompts)
