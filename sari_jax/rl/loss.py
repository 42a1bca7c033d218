"""The clipped policy objective that GRPO and its relatives share; `Objective` says which parts it is made of."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sari_jax.rl.aggregation import AGGREGATIONS
from sari_jax.rl.kl import ESTIMATORS, IN_REWARD
from sari_jax.rl.objectives import Objective
from sari_jax.rl.ratios import RATIOS


def grpo_loss(
    objective: Objective,
    logprobs: Float[Array, "B G T"],
    old_logprobs: Float[Array, "B G T"],
    reference_logprobs: Float[Array, "B G T"] | None,
    advantages: Float[Array, "B G"],
    mask: Bool[Array, "B G T"],
    *,
    importance: Float[Array, "B G T"] | None = None,
    num_completions: Int[Array, ""] | None = None,
    num_tokens: Int[Array, ""] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """min(ratio * advantage, clipped ratio * advantage), less the KL where its place is the loss, by token weights.

    A group whose advantages are all zeros still feels the KL. A row without tokens (padding of the batch) counts
    nowhere.

    Args:
        old_logprobs: under the policy that sampled; `stop_gradient(logprobs)` if it is the one that learns.
        reference_logprobs: None where the objective has no KL.
        importance: a weight of each token's gain, for instance `truncated_importance`; the KL is not weighted.
        num_completions, num_tokens: counts over the whole batch, where this is a part of it. The parts' losses and
            metrics then add up to the batch's.

    Returns:
        The loss, and as means over tokens `kl` (by the objective's estimator), `ratio`, `clip_fraction` (of ratios
        beyond the clip, whatever the advantage's sign) and `importance`; `kl` and `importance` where there is one.

    References:
        Shao et al. 2024, "DeepSeekMath", equation 3; `rl.objectives` for the others.
    """
    num_completions = mask.any(axis=-1).sum() if num_completions is None else num_completions
    num_tokens = mask.sum() if num_tokens is None else num_tokens
    weight = AGGREGATIONS[objective.aggregation](mask, num_completions, num_tokens)
    mean = lambda x: jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(num_tokens, 1)  # noqa: E731

    ratio = RATIOS[objective.ratio](logprobs, old_logprobs, mask)
    least, most = 1 - objective.clip_low, 1 + objective.clip_high
    gain = jnp.minimum(
        ratio * advantages[..., None], jnp.clip(ratio, least, most) * advantages[..., None]
    )
    metrics = {"ratio": mean(ratio), "clip_fraction": mean((ratio < least) | (ratio > most))}
    if importance is not None:
        gain *= importance
        metrics["importance"] = mean(importance)
    if reference_logprobs is not None:
        distance = jnp.where(mask, logprobs - reference_logprobs, 0.0)
        kl = ESTIMATORS[objective.kl](distance)
        if objective.kl not in IN_REWARD:
            gain -= objective.kl_coefficient * kl
        metrics["kl"] = mean(kl)
    loss = -jnp.sum(weight * gain)
    return loss, jax.lax.stop_gradient({"loss": loss, **metrics})
