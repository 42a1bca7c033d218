"""The two updates, SFT and GRPO: pure functions of (state, batch), jitted, with the state donated."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from sari_jax.generate.rollout import Completions
from sari_jax.models.audio_lm import Prompts, bind
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.lora import with_dropout, with_noise
from sari_jax.parallel.mesh import constrain, num_data_shards
from sari_jax.rl.loss import grpo_loss
from sari_jax.rl.policy import completion_logprobs
from sari_jax.rl.ratios import truncated_importance
from sari_jax.sft.loss import sft_loss
from sari_jax.train.config import Grpo
from sari_jax.train.optimizer import Flat, merge
from sari_jax.train.state import TrainState, add_gradient, apply_gradient, in_place, nothing

Features = Float[Array, "B A F D"] | None
Step = Callable[..., tuple[TrainState, dict[str, Array]]]
Sums = tuple[dict[str, Array], Flat]  # metrics and gradient


class Part(NamedTuple):
    """Rows of a supervised batch, in shapes of their own."""

    prompts: Prompts
    answers: Int[Array, "B 1 T"]
    mask: Bool[Array, "B 1 T"]
    features: Features = None


def make_sft_step(
    config: AudioLMConfig,
    optimizer: optax.GradientTransformation,
    *,
    dropout: float = 0.0,
    seed: int = 0,
) -> Step:
    """(state, frozen, parts) -> (state, metrics).

    The gradient of a batch is the sum of its parts', which are worked on one after the other: memory is that of the
    largest part, and short rows are not padded to the longest. A program is compiled for each shape of a part, not
    for each combination.

    Args:
        dropout: of what goes into adapters, drawn by (seed, step, part of the batch).
    """
    config = with_dropout(config, dropout)

    def loss(params: Flat, frozen: Flat, part: Part, tokens: Array | None, key: Array):
        whole = with_noise(config, merge(params, frozen), key)
        return sft_loss(bind(config, whole), *part, tokens)

    def key_of(step: Array, part: int) -> Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), part)

    @functools.partial(jax.jit, donate_argnames="so_far")
    def add(
        so_far: Sums, params: Flat, frozen: Flat, part: Part, tokens: Array, key: Array
    ) -> Sums:
        return add_gradient(params, lambda params: loss(params, frozen, part, tokens, key), so_far)

    @functools.partial(jax.jit, donate_argnames="state")
    def finish(
        state: TrainState,
        so_far: Sums | None,
        frozen: Flat,
        part: Part,
        tokens: Array | None,
        key: Array | None,
    ) -> tuple[TrainState, dict[str, Array]]:
        key = key_of(state.step, 0) if key is None else key
        down = lambda params: loss(params, frozen, part, tokens, key)  # noqa: E731
        return apply_gradient(state, optimizer, down, so_far)

    @jax.jit
    def start(
        state: TrainState, frozen: Flat, part: Part, masks: list[Array]
    ) -> tuple[Sums, Array, list[Array]]:
        """Metrics and gradient of no rows, the tokens of all, and each part's key."""
        tokens = sum(mask.sum() for mask in masks)
        keys = [key_of(state.step, number) for number in range(len(masks))]
        down = lambda params: loss(params, frozen, part, tokens, keys[0])  # noqa: E731
        return nothing(state.params, down), tokens, keys

    def sft_step(
        state: TrainState, frozen: Flat, parts: Sequence[Part]
    ) -> tuple[TrainState, dict[str, Array]]:
        so_far, tokens, keys = None, None, [None]
        if len(parts) > 1:
            masks = [part.mask for part in parts]
            so_far, tokens, keys = start(state, frozen, parts[0], masks)
        for part, key in zip(parts[:-1], keys[:-1], strict=True):
            so_far = add(so_far, state.params, frozen, part, tokens, key)
        return finish(state, so_far, frozen, parts[-1], tokens, keys[-1])

    return sft_step


class Rollout(NamedTuple):
    """What a GRPO update learns from; each array's first axis is the batch's prompts.

    Attributes:
        reference: log-probabilities under the reference, where there is one.
        old: under the policy that sampled, as the trainer computes them, where that was done before.
        unmoved: whether the policy's parameters are the reference's numbers. The KL is then exactly 0, and so is its
            gradient, however differently two programs round.
    """

    prompts: Prompts
    completions: Completions
    features: Features = None
    reference: Float[Array, "B G T"] | None = None
    old: Float[Array, "B G T"] | None = None
    advantages: Float[Array, "B G"] | None = None
    unmoved: Bool[Array, ""] | None = None


def make_grpo_step(
    config: AudioLMConfig,
    settings: Grpo,
    optimizer: optax.GradientTransformation,
    micro_batches: int = 1,
) -> Step:
    """(state, frozen, rollout) -> (state, metrics).

    `updates_per_rollout` updates, and one step. Where the old log-probabilities are not given, they are those of this
    update's own policy, held constant; or with `overlap`, where the policy that sampled is an update older, the
    sampler's. `sampler_gap` is how far trainer and sampler differ at most: by rounding, and by that update too where
    there was one between them (`updates_behind`).

    Metrics are means over the updates, but for `sampler_gap`, which is the first's, and `skipped`, a number of them.

    Args:
        micro_batches: equal parts of each device's prompts, whose gradients are added up one after the other: the
            same update, in the memory of one part.
    """
    formula = settings.resolved_objective

    def old_logprobs(rollout: Rollout, logprobs: Array) -> Array:
        if rollout.old is not None:
            return rollout.old
        return rollout.completions.logprobs if settings.overlap else jax.lax.stop_gradient(logprobs)

    def loss(
        params: Flat,
        frozen: Flat,
        rollout: Rollout,
        unmoved: Array | None,
        completions: Array,
        tokens: Array,
    ) -> tuple[Array, dict[str, Array]]:
        done, mask = rollout.completions, rollout.completions.mask
        logprobs, entropy = completion_logprobs(
            bind(config, merge(params, frozen)),
            rollout.prompts,
            done.tokens,
            rollout.features,
            settings.temperature,
        )
        old, importance = old_logprobs(rollout, logprobs), None
        reference = rollout.reference
        if reference is not None and unmoved is not None:
            # Adam divides a gradient by its own size: one of rounding errors moves parameters as far as any other.
            reference = jnp.where(unmoved, jax.lax.stop_gradient(logprobs), reference)
        if settings.importance_cap:
            importance = truncated_importance(old, done.logprobs, mask, settings.importance_cap)
        value, metrics = grpo_loss(
            formula,
            logprobs,
            old,
            reference,
            rollout.advantages,
            mask,
            importance=importance,
            num_completions=completions,
            num_tokens=tokens,
        )
        gap = jnp.where(mask, jnp.abs(logprobs - done.logprobs), 0.0)
        metrics |= {
            "entropy": jnp.sum(jnp.where(mask, entropy, 0.0)) / jnp.maximum(tokens, 1),
            "sampler_gap": gap.max(),
        }
        return value, metrics

    def update(
        state: TrainState, frozen: Flat, whole: Rollout, unmoved: Array | None
    ) -> tuple[TrainState, dict]:
        mask = whole.completions.mask
        rest = unmoved, mask.any(-1).sum(), mask.sum()
        of_part = lambda part: lambda params: loss(params, frozen, part, *rest)  # noqa: E731
        if micro_batches == 1:
            return apply_gradient(state, optimizer, of_part(whole))
        leaves, form = jax.tree.flatten(whole)
        parts = [by_part(x, micro_batches) for x in leaves]

        def add(so_far: Sums, part: list[Array]) -> tuple[Sums, None]:
            return add_gradient(state.params, of_part(form.unflatten(part)), so_far), None

        none = nothing(state.params, of_part(form.unflatten([x[0] for x in parts])))
        so_far, _ = jax.lax.scan(add, none, parts)
        return apply_gradient(state, optimizer, None, so_far)

    @functools.partial(jax.jit, donate_argnames="state")
    def grpo_step(
        state: TrainState, frozen: Flat, rollout: Rollout
    ) -> tuple[TrainState, dict[str, Array]]:
        whole, unmoved = counted_apart(rollout)._replace(unmoved=None), rollout.unmoved
        if settings.updates_per_rollout == 1:
            return update(state, frozen, whole, unmoved)

        def again(carry: tuple[TrainState, Array | None], _: None) -> tuple:
            state, unmoved = carry
            state, metrics = update(state, frozen, whole, unmoved)
            if unmoved is not None:
                unmoved &= metrics["update_norm"] == 0
            return (state, unmoved), metrics

        carry, count = (state, unmoved), settings.updates_per_rollout
        (after, _), rows = jax.lax.scan(again, carry, length=count)
        params, opt_state = in_place((after.params, after.opt_state))
        return TrainState(state.step + 1, params, opt_state), over_updates(rows)

    return grpo_step


def counted_apart(rollout: Rollout) -> Rollout:
    """Rows alone, without the one number for all of them."""
    return rollout._replace(completions=rollout.completions.replace(rows_decoded=None))


def over_updates(rows: dict[str, Float[Array, "U"]]) -> dict[str, Float[Array, ""]]:
    """The metrics of several updates -> those of their step."""
    # Sampler and trainer are compared before the first of them moves the trainer away.
    of = {"skipped": jnp.sum, "sampler_gap": lambda values: values[0]}
    return {name: of.get(name, jnp.mean)(values) for name, values in rows.items()}


def by_part(x: Array, count: int) -> Array:
    """[B, ...] -> [count, B / count, ...]: each part has its share of every device's rows, so that none are moved."""
    num_shards = num_data_shards()
    x = x.reshape(num_shards, count, -1, *x.shape[1:]).swapaxes(0, 1)
    return constrain(x.reshape(count, -1, *x.shape[3:]), None, "batch")
