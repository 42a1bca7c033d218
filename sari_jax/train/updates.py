"""The two updates, SFT and GRPO: pure functions of (state, batch), jitted, with the state donated."""

import functools
from collections.abc import Sequence
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
from sari_jax.train.state import TrainState, add_gradient, apply_gradient, in_place, zero_sum

Metrics = dict[str, Array]
MetricsAndGradient = tuple[Metrics, Flat]


class SftPart(NamedTuple):
    """Rows of a supervised batch, in shapes of their own.

    Attributes:
        features: the tower's output, where it is computed before the update.
    """

    prompts: Prompts
    answers: Int[Array, "B 1 T"]
    mask: Bool[Array, "B 1 T"]
    features: Float[Array, "B A F D"] | None = None


def sft_update(
    state: TrainState,
    frozen: Flat,
    parts: Sequence[SftPart],
    *,
    config: AudioLMConfig,
    optimizer: optax.GradientTransformation,
    dropout: float = 0.0,
    seed: int = 0,
) -> tuple[TrainState, Metrics]:
    """Makes one update from the parts of a batch.

    The gradient of a batch is the sum of its parts' gradients. The parts are processed one after the other: memory is
    that of the largest part, and short rows are not padded to the longest. This function is not jitted itself. XLA
    compiles one program for each shape of a part, not one for each combination of shapes.

    Args:
        parts: at least one.
        dropout: applied to the inputs of adapters; its noise is drawn by (seed, step, part of the batch).
    """
    *first, last = parts
    config = with_dropout(config, dropout)
    static = {"config": config, "optimizer": optimizer, "seed": seed}
    if not first:
        return _sft_finish(state, None, frozen, last, None, None, **static)
    masks = [part.mask for part in parts]
    total, num_tokens, keys = _sft_start(state, frozen, first[0], masks, config=config, seed=seed)
    for part, key in zip(first, keys[:-1], strict=True):
        total = _sft_add(total, state.params, frozen, part, num_tokens, key, config=config)
    return _sft_finish(state, total, frozen, last, num_tokens, keys[-1], **static)


@functools.partial(jax.jit, static_argnames=("config", "seed"))
def _sft_start(
    state: TrainState,
    frozen: Flat,
    part: SftPart,
    masks: list[Array],
    *,
    config: AudioLMConfig,
    seed: int,
) -> tuple[MetricsAndGradient, Array, list[Array]]:
    """(metrics and gradient of no rows, the number of tokens in all parts, each part's key)"""
    num_tokens = sum(mask.sum() for mask in masks)
    keys = [_dropout_key(seed, state.step, index) for index in range(len(masks))]
    loss = _sft_loss(frozen, part, num_tokens, keys[0], config)
    return zero_sum(state.params, loss), num_tokens, keys


@functools.partial(jax.jit, static_argnames="config", donate_argnames="total")
def _sft_add(
    total: MetricsAndGradient,
    params: Flat,
    frozen: Flat,
    part: SftPart,
    num_tokens: Array,
    key: Array,
    *,
    config: AudioLMConfig,
) -> MetricsAndGradient:
    """The sum with one more part's metrics and gradient."""
    return add_gradient(params, _sft_loss(frozen, part, num_tokens, key, config), total)


@functools.partial(
    jax.jit, static_argnames=("config", "optimizer", "seed"), donate_argnames="state"
)
def _sft_finish(
    state: TrainState,
    total: MetricsAndGradient | None,
    frozen: Flat,
    part: SftPart,
    num_tokens: Array | None,
    key: Array | None,
    *,
    config: AudioLMConfig,
    optimizer: optax.GradientTransformation,
    seed: int,
) -> tuple[TrainState, Metrics]:
    """The update, after the last part, which is the only one where `total` is None."""
    key = _dropout_key(seed, state.step, 0) if key is None else key
    loss = _sft_loss(frozen, part, num_tokens, key, config)
    return apply_gradient(state, optimizer, loss, total)


def _sft_loss(
    frozen: Flat, part: SftPart, num_tokens: Array | None, key: Array, config: AudioLMConfig
):
    """The loss of a part as a function of the trained parameters."""

    def loss(params: Flat) -> tuple[Array, Metrics]:
        model = bind(config, with_noise(config, merge(params, frozen), key))
        return sft_loss(
            model, part.prompts, part.answers, part.mask, part.features, num_tokens=num_tokens
        )

    return loss


def _dropout_key(seed: int, step: Array, part: int) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), part)


class Rollout(NamedTuple):
    """The input of a GRPO update. Each array but `unmoved` has the batch's prompts as its first axis.

    Attributes:
        features: the tower's output, where it is computed before the update.
        reference: log-probabilities under the reference, where there is one.
        old: log-probabilities under the policy that sampled, where the trainer computed them before the update.
        unmoved: whether the policy's parameters equal the reference's. The KL and its gradient are then exactly 0,
            however differently two programs round.
    """

    prompts: Prompts
    completions: Completions
    features: Float[Array, "B A F D"] | None = None
    reference: Float[Array, "B G T"] | None = None
    old: Float[Array, "B G T"] | None = None
    advantages: Float[Array, "B G"] | None = None
    unmoved: Bool[Array, ""] | None = None

    def rows_only(self) -> "Rollout":
        """The rollout without `completions.rows_decoded`, which has no axis of prompts."""
        return self._replace(completions=self.completions.replace(rows_decoded=None))


@functools.partial(
    jax.jit,
    static_argnames=("config", "settings", "optimizer", "micro_batches"),
    donate_argnames="state",
)
def grpo_update(
    state: TrainState,
    frozen: Flat,
    rollout: Rollout,
    *,
    config: AudioLMConfig,
    settings: Grpo,
    optimizer: optax.GradientTransformation,
    micro_batches: int = 1,
) -> tuple[TrainState, Metrics]:
    """Makes the `updates_per_rollout` updates of one step.

    The old log-probabilities are `rollout.old` if they are given. With `overlap` the policy that sampled is an update
    older, and they are the sampler's. Otherwise they are this update's own, held constant.

    Args:
        micro_batches: equal parts of each device's prompts. Their gradients are added up one after the other: the same
            update, in the memory of one part.

    Returns:
        The state, and metrics as means over the updates, with two exceptions. `sampler_gap` is the first update's: the
        largest difference between trainer's and sampler's log-probabilities. It is rounding, plus the updates between
        the two policies where there are any (`updates_behind`). `skipped` is a number of updates.
    """
    batch, unmoved = rollout.rows_only()._replace(unmoved=None), rollout.unmoved
    update = functools.partial(
        _grpo_update,
        frozen=frozen,
        batch=batch,
        config=config,
        settings=settings,
        optimizer=optimizer,
        micro_batches=micro_batches,
    )
    if settings.updates_per_rollout == 1:
        return update(state, unmoved)

    def again(carry: tuple[TrainState, Array | None], _: None) -> tuple:
        state, unmoved = carry
        state, metrics = update(state, unmoved)
        if unmoved is not None:
            unmoved &= metrics["update_norm"] == 0
        return (state, unmoved), metrics

    count = settings.updates_per_rollout
    (after, _), rows = jax.lax.scan(again, (state, unmoved), length=count)
    params, opt_state = in_place((after.params, after.opt_state))
    return TrainState(state.step + 1, params, opt_state), over_updates(rows)


def _grpo_update(
    state: TrainState,
    unmoved: Array | None,
    *,
    frozen: Flat,
    batch: Rollout,
    config: AudioLMConfig,
    settings: Grpo,
    optimizer: optax.GradientTransformation,
    micro_batches: int,
) -> tuple[TrainState, Metrics]:
    """One update."""
    mask = batch.completions.mask
    num_completions, num_tokens = mask.any(-1).sum(), mask.sum()

    def loss_of(part: Rollout):
        return functools.partial(
            _grpo_loss,
            frozen=frozen,
            rollout=part,
            unmoved=unmoved,
            num_completions=num_completions,
            num_tokens=num_tokens,
            config=config,
            settings=settings,
        )

    if micro_batches == 1:
        return apply_gradient(state, optimizer, loss_of(batch))
    leaves, form = jax.tree.flatten(batch)
    parts = [split(x, micro_batches) for x in leaves]

    def add(total: MetricsAndGradient, part: list[Array]) -> tuple[MetricsAndGradient, None]:
        return add_gradient(state.params, loss_of(form.unflatten(part)), total), None

    zeros = zero_sum(state.params, loss_of(form.unflatten([x[0] for x in parts])))
    total, _ = jax.lax.scan(add, zeros, parts)
    return apply_gradient(state, optimizer, None, total)


def _grpo_loss(
    params: Flat,
    *,
    frozen: Flat,
    rollout: Rollout,
    unmoved: Array | None,
    num_completions: Array,
    num_tokens: Array,
    config: AudioLMConfig,
    settings: Grpo,
) -> tuple[Array, Metrics]:
    """The loss of a part of a batch that has these numbers of completions and tokens in all."""
    sampled, mask = rollout.completions, rollout.completions.mask
    logprobs, entropy = completion_logprobs(
        bind(config, merge(params, frozen)),
        rollout.prompts,
        sampled.tokens,
        rollout.features,
        settings.temperature,
    )
    old = rollout.old
    if old is None:
        old = sampled.logprobs if settings.overlap else jax.lax.stop_gradient(logprobs)
    reference = rollout.reference
    if reference is not None and unmoved is not None:
        # Adam divides a gradient by its own size: a gradient of rounding errors moves parameters as far as any other.
        reference = jnp.where(unmoved, jax.lax.stop_gradient(logprobs), reference)
    importance = None
    if settings.importance_cap:
        importance = truncated_importance(old, sampled.logprobs, mask, settings.importance_cap)
    loss, metrics = grpo_loss(
        settings.resolved_objective,
        logprobs,
        old,
        reference,
        rollout.advantages,
        mask,
        importance=importance,
        num_completions=num_completions,
        num_tokens=num_tokens,
    )
    gap = jnp.where(mask, jnp.abs(logprobs - sampled.logprobs), 0.0)
    metrics |= {
        "entropy": jnp.sum(jnp.where(mask, entropy, 0.0)) / jnp.maximum(num_tokens, 1),
        "sampler_gap": gap.max(),
    }
    return loss, metrics


def over_updates(rows: dict[str, Float[Array, "U"]]) -> dict[str, Float[Array, ""]]:
    """Reduces the metrics of U updates to those of their step."""

    def reduced(name: str, values: Float[Array, "U"]) -> Float[Array, ""]:
        if name == "skipped":
            return values.sum()
        # Sampler and trainer are compared before the first update moves the trainer away.
        return values[0] if name == "sampler_gap" else values.mean()

    return {name: reduced(name, values) for name, values in rows.items()}


def split(x: Array, count: int) -> Array:
    """Splits [B, ...] into [count, B / count, ...]. Each part has its share of every device's rows; none moves."""
    num_shards = num_data_shards()
    x = x.reshape(num_shards, count, -1, *x.shape[1:]).swapaxes(0, 1)
    return constrain(x.reshape(count, -1, *x.shape[3:]), None, "batch")
