"""Group-relative advantages (Shao et al. 2024, section 4.1)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def group_advantages(rewards: Float[Array, "B G"], eps: float = 1e-4) -> Float[Array, "B G"]:
    """Standardises each prompt's rewards over its G completions, by the unbiased deviation.

    A group whose rewards are all equal carries no signal: its advantages are exactly zero.

        [[1, 0, 0, 1]] -> [[0.866, -0.866, -0.866, 0.866]]
        [[0.1, 0.1, 0.1]] -> [[0, 0, 0]]
    """
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    advantages = centred / (rewards.std(axis=1, ddof=1, keepdims=True) + eps)
    # The mean of equal numbers may differ from them by a rounding error, which the division would magnify.
    return jnp.where(zero_spread(rewards)[:, None], 0.0, advantages)


def zero_spread(rewards: Float[Array, "B G"]) -> Bool[Array, "B"]:
    """Which groups have equal rewards throughout. Many of them mean that sampling or the questions are at fault."""
    return (rewards == rewards[:, :1]).all(axis=1)
