"""Estimators of the KL from the reference, by what was sampled (Schulman, "Approximating KL divergence", 2020).

With d = log p_policy - log p_reference of a sampled token. As values k1 and k3 are unbiased, and k3 and k2 never
negative. As terms of a loss they are other things:

    name  value             placed in  its gradient, on policy
    k1    d                 reward     of KL(policy, reference), by the score function; as a loss it would be zero
    k2    d ** 2 / 2        loss       of KL(policy, reference)
    k3    exp(-d) - 1 + d   loss       of KL(reference, policy): near the reference the two agree

So k1 is taken from a completion's reward, as PPO and RLOO do, and k2 and k3 are differentiated, as GRPO does with k3.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Estimate = Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]]


def k1(distance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return distance


def k2(distance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return distance**2 / 2


def k3(distance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
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
    """Rewards less coefficient times k1 summed over a completion, under the policy that sampled it."""
    distance = jnp.where(mask, old_logprobs - reference_logprobs, 0.0)
    return rewards - coefficient * distance.sum(axis=-1)
