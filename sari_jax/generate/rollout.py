"""G completions of each prompt: sound encoded and prompt prefilled once, then a jitted decode loop."""

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

# Parts of the completions that are decoded as they end: of lengths that are geometric with a mean of 0.4 of the limit,
# about a sixth of the work is wasted. Each part compiles the loop once more, which so few steps as SHORT are not worth.
STAGES = (1, 3 / 4, 1 / 2, 3 / 8, 1 / 4, 1 / 8)
SHORT = 48


@flax.struct.dataclass
class Completions:
    """What was sampled.

    Attributes:
        tokens: [B, G, T] ids, the end token included, `pad_id` after it.
        logprobs: [B, G, T] of each token under the sampling policy, 0 after the end.
        lengths: [B, G] tokens up to and with the end token.
        done: [B, G] whether an end token came before the limit.
        rows_decoded: rows of decoding work over all steps, padding included; None after a change of layout. The
            lengths' sum over it is the useful share. The product with the shared keys is not counted.
    """

    tokens: Int[Leaf, "B G T"]
    logprobs: Float[Leaf, "B G T"]
    lengths: Int[Leaf, "B G"]
    done: Bool[Leaf, "B G"]
    rows_decoded: Int[Leaf, ""] | None = None

    @property
    def mask(self) -> Bool[Array, "B G T"]:
        return jnp.arange(self.tokens.shape[-1]) < self.lengths[..., None]


@flax.struct.dataclass
class _State:
    """[I, N, ...] of the rows that are decoded, [I, R, ...] of all completions."""

    step: Int[Array, ""]
    rows_decoded: Int[Array, ""]
    rows: ActiveSequences
    hidden: Float[Array, "I N E"]  # predicts the token of this step
    completion_cache: KVCache  # [L, I, N, K, T, D]
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

    The noise of a completion comes from (key, its prompt's seed, its place in the group, the step) alone:
    a prompt gives the same completions whatever stands beside it in the batch.

    Finished completions stop costing: as soon as those that run fit the next of `STAGES`, they are moved together and
    decoded alone. A completion never changes its data shard.

    Args:
        params: over several devices as `DecodingPolicy` lays them out, or each token gathers them.
        seeds: one integer per prompt, for instance its number in the dataset.
        key: fold the training step into it; the same key gives the same completions.
        features: the tower's output where it is known already.
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
    """Each prompt once: what predicts the first new token, and the keys and values that its group shares."""
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
    """The completions of prefilled prompts of these lengths: see `rollout`."""
    model = bind(config, params)
    b, g, t = lengths.shape[0], sampler.num_completions, sampler.max_tokens
    shards = num_data_shards()
    size = b * g // shards
    rows = ActiveSequences(jnp.broadcast_to(jnp.arange(size), (shards, size)), size, g)
    layers, _, kv_heads, _, head_dim = prompt_cache.keys.shape
    empty = jnp.zeros((layers, shards, size, kv_heads, t, head_dim), prompt_cache.keys.dtype)
    empty = constrain(empty, None, "batch", None, "heads")
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, seeds)
    keys = jax.vmap(lambda k: jax.vmap(jax.random.fold_in, (None, 0))(k, jnp.arange(g)))(keys)
    advance = functools.partial(
        _advance, model, sampler, lengths, prompt_cache, keys.reshape(shards, size)
    )

    state = _State(
        step=jnp.zeros((), jnp.int32),
        rows_decoded=jnp.zeros((), jnp.int32),
        rows=rows,
        hidden=rows.from_prompt(hidden),
        completion_cache=KVCache(empty, empty),
        tokens=jnp.full((shards, size, t), sampler.pad_id, jnp.int32),
        logprobs=jnp.zeros((shards, size, t), jnp.float32),
        lengths=jnp.zeros((shards, size), jnp.int32),
        done=jnp.zeros((shards, size), bool),
    )
    stages = STAGES if t > SHORT else STAGES[:1]
    sizes = sorted({math.ceil(size * stage) for stage in stages}, reverse=True)
    for now, fewer in zip(sizes, [*sizes[1:], 0], strict=True):
        state = _move_together(state, now)
        running = lambda state, fewer=fewer: (  # noqa: E731
            (state.step < t) & ((~state.done).sum(axis=1).max() > fewer)
        )
        state = jax.lax.while_loop(running, advance, state)
    of_group = lambda x: constrain(x.reshape(b, g, *x.shape[2:]), "batch")  # noqa: E731
    return Completions(
        tokens=of_group(state.tokens),
        logprobs=of_group(state.logprobs),
        lengths=of_group(state.lengths),
        done=of_group(state.done),
        rows_decoded=state.rows_decoded,
    )


def _move_together(state: _State, count: int) -> _State:
    """Leaves `count` rows of each shard: all that run, and the first of the others."""
    rows = state.rows
    if rows.places.shape[1] == count:
        return state
    first = jnp.argsort(rows.select(state.done), axis=1, stable=True)[:, :count]
    take = jax.vmap(lambda shard, order: shard[order])
    return state.replace(
        rows=rows.replace(places=take(rows.places, first)),
        hidden=take(state.hidden, first),
        completion_cache=jax.tree.map(
            lambda x: constrain(jax.vmap(take, (0, None))(x, first), None, "batch", None, "heads"),
            state.completion_cache,
        ),
    )


def _advance(
    model: AudioLM,
    sampler: Sampler,
    prompt_lengths: Int[Array, "B"],
    prompt_cache: KVCache,
    keys: Array,
    state: _State,
) -> _State:
    """Chooses this step's tokens and computes the hidden states that predict the next ones."""
    rows, (i, n, e) = state.rows, state.hidden.shape
    logits = model.decoder.logits(state.hidden.reshape(i * n, e))
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(rows.select(keys).reshape(-1), state.step)
    tokens, logprobs = (part.reshape(i, n) for part in sample(sampler, logits, step_keys))
    live = ~rows.select(state.done)
    tokens = jnp.where(live, tokens, sampler.pad_id)
    hidden, completion_cache = model.decoder.decode(
        model.decoder.embedded(tokens),
        rows,
        state.step,
        prompt_lengths,
        prompt_cache,
        state.completion_cache,
    )
    hit = live & jnp.isin(tokens, jnp.asarray(sampler.end_ids, jnp.int32))

    def write(whole: Array, values: Array) -> Array:
        """The rows' values in this step's column."""
        column = rows.scatter(whole[..., state.step], values)
        return jax.lax.dynamic_update_index_in_dim(whole, column, state.step, axis=2)

    return state.replace(
        step=state.step + 1,
        rows_decoded=state.rows_decoded + i * n,
        hidden=hidden,
        completion_cache=completion_cache,
        tokens=write(state.tokens, tokens),
        logprobs=write(state.logprobs, jnp.where(live, logprobs, 0.0)),
        lengths=rows.scatter(state.lengths, rows.select(state.lengths) + live),
        done=rows.scatter(state.done, rows.select(state.done) | hit),
    )


@functools.partial(jax.jit, static_argnums=0)
def encode(config: AudioLMConfig, params: Params, prompts: Prompts) -> Float[Array, "B A F D"]:
    """The tower's features, for the callers that use them more than once."""
    return bind(config, params).encode(prompts)
