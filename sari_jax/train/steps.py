"""The two updates, SFT and GRPO: pure functions of (state, batch), jitted, with the state donated."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from sari_jax.generate.rollout import Completions
from sari_jax.models.audio_lm import Prompts, bind
from sari_jax.models.config import AudioLMConfig
from sari_jax.rl.loss import grpo_loss
from sari_jax.rl.policy import completion_logprobs
from sari_jax.sft.loss import sft_loss
from sari_jax.train.config import Grpo
from sari_jax.train.optimizer import Flat, merge
from sari_jax.train.state import TrainState, apply_gradient

Features = Float[Array, "B A F D"] | None
Step = Callable[..., tuple[TrainState, dict[str, Array]]]


def make_sft_step(config: AudioLMConfig, optimizer: optax.GradientTransformation) -> Step:
    """(state, frozen, prompts, answers, mask, features) -> (state, metrics)."""

    @functools.partial(jax.jit, donate_argnames="state")
    def sft_step(
        state: TrainState,
        frozen: Flat,
        prompts: Prompts,
        answers: Int[Array, "B 1 T"],
        mask: Bool[Array, "B 1 T"],
        features: Features = None,
    ) -> tuple[TrainState, dict[str, Array]]:
        def loss(params: Flat) -> tuple[Array, dict[str, Array]]:
            return sft_loss(bind(config, merge(params, frozen)), prompts, answers, mask, features)

        return apply_gradient(state, optimizer, loss)

    return sft_step


def make_grpo_step(
    config: AudioLMConfig, settings: Grpo, optimizer: optax.GradientTransformation
) -> Step:
    """(state, frozen, prompts, completions, reference, advantages, features) -> (state, metrics).

    One update per rollout: the sampling policy is the policy of this step, so the old log-probabilities are the
    trainer's own, held constant. How far the sampler's differ from them is logged as `sampler_gap`.
    """

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
        tokens = jnp.maximum(mask.sum(), 1)

        def loss(params: Flat) -> tuple[Array, dict[str, Array]]:
            model = bind(config, merge(params, frozen))
            logprobs, entropy = completion_logprobs(
                model, prompts, completions.tokens, features, settings.temperature
            )
            value, metrics = grpo_loss(
                logprobs,
                jax.lax.stop_gradient(logprobs),
                reference,
                advantages,
                mask,
                clip_epsilon=settings.clip_epsilon,
                kl_coefficient=settings.kl_coefficient,
            )
            gap = jnp.where(mask, jnp.abs(logprobs - completions.logprobs), 0.0)
            metrics |= {
                "entropy": jnp.sum(jnp.where(mask, entropy, 0.0)) / tokens,
                "sampler_gap": gap.max(),
            }
            return value, metrics

        return apply_gradient(state, optimizer, loss)

    return grpo_step
