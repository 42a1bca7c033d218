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
from sari_jax.parallel.mesh import batch_ways, constrain
from sari_jax.rl.loss import grpo_loss
from sari_jax.rl.policy import completion_logprobs
from sari_jax.sft.loss import sft_loss
from sari_jax.train.config import Grpo
from sari_jax.train.optimizer import Flat, merge
from sari_jax.train.state import TrainState, add_gradient, apply_gradient, nothing

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
    """What a GRPO update learns from; each array's first axis is the batch's prompts."""

    prompts: Prompts
    completions: Completions
    reference: Float[Array, "B G T"]
    advantages: Float[Array, "B G"]
    features: Features = None


def make_grpo_step(
    config: AudioLMConfig,
    settings: Grpo,
    optimizer: optax.GradientTransformation,
    micro_batches: int = 1,
) -> Step:
    """(state, frozen, prompts, completions, reference, advantages, features) -> (state, metrics).

    One update per rollout: the sampling policy is the policy of this step, so the old log-probabilities are the
    trainer's own, held constant. Where `settings.overlap` makes it one update older, they are the sampler's, and the
    ratio and its clipping come into play. `sampler_gap` is how far the two differ at most: by rounding, and by that
    update too where there was one between them (`updates_behind`).

    Args:
        micro_batches: equal parts of each device's prompts, whose gradients are added up one after the other: the
            same update, in the memory of one part.
    """

    def loss(
        params: Flat, frozen: Flat, rollout: Rollout, completions: Array, tokens: Array
    ) -> tuple[Array, dict[str, Array]]:
        prompts, done, reference, advantages, features = rollout
        mask = done.mask
        logprobs, entropy = completion_logprobs(
            bind(config, merge(params, frozen)),
            prompts,
            done.tokens,
            features,
            settings.temperature,
        )
        value, metrics = grpo_loss(
            logprobs,
            done.logprobs if settings.overlap else jax.lax.stop_gradient(logprobs),
            reference,
            advantages,
            mask,
            clip_epsilon=settings.clip_epsilon,
            kl_coefficient=settings.kl_coefficient,
            completions=completions,
            tokens=tokens,
        )
        gap = jnp.where(mask, jnp.abs(logprobs - done.logprobs), 0.0)
        metrics |= {
            "entropy": jnp.sum(jnp.where(mask, entropy, 0.0)) / jnp.maximum(tokens, 1),
            "sampler_gap": gap.max(),
        }
        return value, metrics

    @functools.partial(jax.jit, donate_argnames="state")
    def grpo_step(
        state: TrainState,
        frozen: Flat,
        prompts: Prompts,
        completions: Completions,
        reference: Float[Array, "B G T"],
        advantages: Float[Array, "B G"],
        features: Features = None,
    ) -> tuple[TrainState, dict[str, Array]]:
        mask = completions.mask
        whole = Rollout(
            prompts, completions.replace(computed=None), reference, advantages, features
        )
        counts = mask.any(-1).sum(), mask.sum()
        of_part = lambda part: lambda params: loss(params, frozen, part, *counts)  # noqa: E731
        if micro_batches == 1:
            return apply_gradient(state, optimizer, of_part(whole))
        leaves, form = jax.tree.flatten(whole)
        parts = [by_part(x, micro_batches) for x in leaves]

        def add(so_far: Sums, part: list[Array]) -> tuple[Sums, None]:
            return add_gradient(state.params, of_part(form.unflatten(part)), so_far), None

        none = nothing(state.params, of_part(form.unflatten([x[0] for x in parts])))
        so_far, _ = jax.lax.scan(add, none, parts)
        return apply_gradient(state, optimizer, None, so_far)

    return grpo_step


def by_part(x: Array, count: int) -> Array:
    """[B, ...] -> [count, B / count, ...]: each part has its share of every device's rows, so that none are moved."""
    ways = batch_ways()
    x = x.reshape(ways, count, -1, *x.shape[1:]).swapaxes(0, 1)
    return constrain(x.reshape(count, -1, *x.shape[3:]), None, "batch")
