"""Estimators of the KL divergence from the reference, computed from sampled tokens.

With d = log p_policy - log p_reference of a sampled token. As values, k1 and k3 are unbiased, and k2 and k3 are never
negative. As terms of a loss they act differently:

    name  value             placed in  its gradient, on policy
    k1    d                 reward     of KL(policy, reference), by the score function; as a loss it would be zero
    k2    d ** 2 / 2        loss       of KL(policy, reference)
    k3    exp(-d) - 1 + d   loss       of KL(reference, policy): near the reference the two agree

So k1 is subtracted from a completion's reward, as PPO and RLOO do. k2 and k3 are differentiated, as GRPO does with k3.

References:
    Schulman, "Approximating KL divergence", 2020.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Estimate = Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]]


def k1(distance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns d itself: unbiased, and negative for half of the tokens near the reference.

    >>> print(k1(jnp.array([-1.0, 0.0, 1.0])))
    [-1.  0.  1.]

    Args:
        distance: d = log p_policy - log p_reference of each sampled token.

    Returns:
        d, to be subtracted from the reward.
    """
    return distance


def k2(distance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns d ** 2 / 2: biased and never negative; its gradient is that of KL(policy, reference).

    >>> print(k2(jnp.array([-1.0, 0.0, 1.0])))
    [0.5 0.  0.5]

    Args:
        distance: d = log p_policy - log p_reference of each sampled token.

    Returns:
        The estimate, to be added to the loss.
    """
    return distance**2 / 2


def k3(distance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns exp(-d) - 1 + d: unbiased and never negative; its gradient is that of KL(reference, policy).

    >>> print(jnp.array_str(k3(jnp.array([-1.0, 0.0, 1.0])), precision=4))
    [0.7183 0.     0.3679]

    Args:
        distance: d = log p_policy - log p_reference of each sampled token.

    Returns:
        The estimate, to be added to the loss.
    """
    return jnp.exp(-distance) + distance - 1


ESTIMATORS: dict[str, Estimate] = {"k1": k1, "k2": k2, "k3": k3}
IN_REWARD = ("k1",)


def penalised(
    rewards: Float[Array, "B G"],
    old_logprobs: Float[Array, "B G T"],
    reference_logprobs: Float[Array, "B G T"],
    mask: Bool[Array, "B G T"],
    coefficient: float,
) -> Float[Array, "B G"]:
    """Subtracts the KL estimate k1 of the whole completion from its reward.

        reward_i - coefficient * sum_t (log p_old(y_it) - log p_reference(y_it))

    >>> old = jnp.array([[[-1.0, -2.0, 0.0]]])
    >>> reference = jnp.array([[[-1.5, -1.0, 0.0]]])
    >>> mask = jnp.array([[[True, True, False]]])
    >>> print(penalised(jnp.array([[3.0]]), old, reference, mask, coefficient=0.5))  # 3 - 0.5 * (0.5 - 1)
    [[3.25]]

    Args:
        rewards: one for each completion.
        old_logprobs: under the policy that sampled.
        reference_logprobs: under the reference.
        mask: true for the tokens that were sampled.
        coefficient: weight of the KL.

    Returns:
        The rewards after the penalty.

    References:
        Ahmadian et al. 2024, "Back to Basics" (RLOO).
    """
    distance = jnp.where(mask, old_logprobs - reference_logprobs, 0.0)
    return rewards - coefficient * distance.sum(axis=-1)
