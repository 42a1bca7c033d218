"""The clipped policy loss that GRPO and its relatives share; `Objective` names the parts it is made of."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sari_jax.rl.aggregation import AGGREGATIONS
from sari_jax.rl.kl import ESTIMATORS, IN_REWARD
from sari_jax.rl.objectives import Objective
from sari_jax.rl.ratios import RATIOS


def clipped_gain(
    ratio: Float[Array, "B G T"],
    advantages: Float[Array, "B G"],
    clip_low: float,
    clip_high: float,
) -> tuple[Float[Array, "B G T"], Bool[Array, "B G T"]]:
    """Computes the gain of each token, which is cut where the ratio has moved too far in the advantage's direction.

        gain_it = min(ratio_it * advantage_i, clip(ratio_it, 1 - clip_low, 1 + clip_high) * advantage_i)

    >>> ratio = jnp.array([[[1.5, 0.5], [1.5, 0.5]]])
    >>> gain, outside = clipped_gain(ratio, jnp.array([[1.0, -1.0]]), clip_low=0.2, clip_high=0.2)
    >>> print(gain)
    [[[ 1.2  0.5]
      [-1.5 -0.8]]]
    >>> print(outside.all())
    True

    Args:
        ratio: the probability ratio of the policy that learns to the policy that sampled.
        advantages: one for each completion.
        clip_low, clip_high: the clipping limits of the objective.

    Returns:
        The gain, and whether the ratio is outside the clip, whatever the advantage's sign.

    References:
        Schulman et al. 2017, "Proximal Policy Optimization Algorithms", equation 7; Yu et al. 2025, "DAPO", for two
        different limits.
    """
    least, most = 1 - clip_low, 1 + clip_high
    gain = jnp.minimum(
        ratio * advantages[..., None], jnp.clip(ratio, least, most) * advantages[..., None]
    )
    return gain, (ratio < least) | (ratio > most)


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
    """Computes the loss of a batch of completions, and its metrics.

        loss = -sum_it weight_it * (importance_it * gain_it - kl_coefficient * kl_it)

    `clipped_gain` gives the gain; the objective chooses ratio, weight and kl. An objective with the KL in the reward
    has no KL term here. A group whose advantages are all zero still has its KL term. A completion without tokens, which
    pads a batch, counts nowhere.

    >>> from sari_jax.rl.objectives import OBJECTIVES
    >>> new = jnp.log(jnp.array([[[0.5, 0.2], [0.2, 0.4]]]))
    >>> old = jnp.log(jnp.array([[[0.4, 0.2], [0.4, 0.4]]]))
    >>> mask = jnp.ones((1, 2, 2), bool)
    >>> loss, _ = grpo_loss(OBJECTIVES["dapo"], new, old, None, jnp.array([[1.0, -1.0]]), mask)
    >>> print(f"{loss:.4f}")  # -(1.25 + 1 - 0.8 - 1) / 4
    -0.1125

    Args:
        objective: the parts to use, for instance OBJECTIVES["grpo"].
        logprobs: under the policy that learns.
        old_logprobs: under the policy that sampled; `stop_gradient(logprobs)` if that is the policy that learns.
        reference_logprobs: under the reference; None for an objective without KL.
        advantages, mask: one advantage for each completion; true for the tokens that were sampled.
        importance: a weight of each token's gain, for instance `truncated_importance`. The KL is not weighted.
        num_completions, num_tokens: counts of the whole batch, if this is a micro-batch; counted from the mask if None.
            The losses and metrics of the micro-batches then add up to the batch's.

    Returns:
        The loss, and as metrics `loss` and the means over tokens of `ratio`, `clip_fraction`, `importance` and `kl`.

    References:
        Shao et al. 2024, "DeepSeekMath", equation 3; `rl.objectives` names the papers of the others.
    """
    num_completions = mask.any(axis=-1).sum() if num_completions is None else num_completions
    num_tokens = mask.sum() if num_tokens is None else num_tokens
    weight = AGGREGATIONS[objective.aggregation](mask, num_completions, num_tokens)
    ratio = RATIOS[objective.ratio](logprobs, old_logprobs, mask)
    gain, outside = clipped_gain(ratio, advantages, objective.clip_low, objective.clip_high)
    means = {"ratio": ratio, "clip_fraction": outside}
    if importance is not None:
        gain *= importance
        means["importance"] = importance
    if reference_logprobs is not None:
        means["kl"] = ESTIMATORS[objective.kl](jnp.where(mask, logprobs - reference_logprobs, 0.0))
        if objective.kl not in IN_REWARD:
            gain -= objective.kl_coefficient * means["kl"]
    loss = -jnp.sum(weight * gain)
    metrics = {name: _token_mean(x, mask, num_tokens) for name, x in means.items()}
    return loss, jax.lax.stop_gradient({"loss": loss, **metrics})


def _token_mean(
    x: Float[Array, "B G T"] | Bool[Array, "B G T"],
    mask: Bool[Array, "B G T"],
    num_tokens: Int[Array, ""],
) -> Float[Array, ""]:
    """Returns the mean over the tokens that the mask shows."""
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(num_tokens, 1)
