"""The clipped policy loss that GRPO and its relatives share; `Objective` names the parts it is made of."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sari_jax.rl.aggregation import AGGREGATIONS
from sari_jax.rl.kl import ESTIMATORS, IN_REWARD
from sari_jax.rl.objectives import Objective
from sari_jax.rl.ratios import RATIOS


@jax.named_scope("loss")
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
    """Computes the loss of a batch of completions, and what to log of it.

        gain_it = min(ratio_it * advantage_i, clip(ratio_it, 1 - clip_low, 1 + clip_high) * advantage_i)
        loss    = -sum_it weight_it * (importance_it * gain_it - kl_coefficient * kl_it)

    The objective chooses ratio, weight and kl. The KL term is left out where the objective places it in the reward. A
    group whose advantages are all zero still has its KL term. A completion without tokens, which pads a batch, counts
    nowhere.

    >>> from sari_jax.rl.objectives import OBJECTIVES
    >>> new = jnp.log(jnp.array([[[0.5, 0.2], [0.2, 0.4]]]))
    >>> old = jnp.log(jnp.array([[[0.4, 0.2], [0.4, 0.4]]]))
    >>> advantages = jnp.array([[1.0, -1.0]])
    >>> mask = jnp.array([[[True, True], [True, True]]])
    >>> loss, metrics = grpo_loss(OBJECTIVES["dapo"], new, old, None, advantages, mask)
    >>> print(f"{loss:.4f}")  # -(1.25 + 1 - 0.8 - 1) / 4
    -0.1125
    >>> print(f"{metrics['ratio']:.4f} {metrics['clip_fraction']:.2f}")  # one ratio, 0.5, is below 0.8
    0.9375 0.25

    Args:
        objective: the parts to use, for instance OBJECTIVES["grpo"].
        logprobs: under the policy that learns.
        old_logprobs: under the policy that sampled; `stop_gradient(logprobs)` if that is the policy that learns.
        reference_logprobs: under the reference; None for an objective without KL.
        advantages: one for each completion.
        mask: true for the tokens that were sampled.
        importance: a weight of each token's gain, for instance `truncated_importance`. The KL is not weighted.
        num_completions: completions in the whole batch, if this is a micro-batch; counted from the mask if None. The
            losses and metrics of the micro-batches then add up to the batch's.
        num_tokens: tokens in the whole batch, in the same way.

    Returns:
        The loss, and means over tokens: `ratio`, `clip_fraction` (of ratios outside the clip, whatever the advantage's
        sign), `kl` by the objective's estimator if there is a reference, and `importance` if it is given.

    References:
        Shao et al. 2024, "DeepSeekMath", equation 3; `rl.objectives` names the papers of the others.
    """
    num_completions = mask.any(axis=-1).sum() if num_completions is None else num_completions
    num_tokens = mask.sum() if num_tokens is None else num_tokens
    weight = AGGREGATIONS[objective.aggregation](mask, num_completions, num_tokens)

    def mean(x: Array) -> Array:
        return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(num_tokens, 1)

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
