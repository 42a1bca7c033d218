"""What a completion's reward says beside those of its group: advantages by name."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def group_advantages(rewards: Float[Array, "B G"], eps: float = 1e-4) -> Float[Array, "B G"]:
    """Standardises each prompt's rewards over its G completions, by the unbiased deviation (Shao et al. 2024, 4.1).

    A group whose rewards are all equal carries no signal: its advantages are exactly zero.

        [[1, 0, 0, 1]] -> [[0.866, -0.866, -0.866, 0.866]]
        [[0.1, 0.1, 0.1]] -> [[0, 0, 0]]
    """
    deviation = rewards.std(axis=1, ddof=1, keepdims=True)
    return _without_flat(
        rewards, (rewards - rewards.mean(axis=1, keepdims=True)) / (deviation + eps)
    )


def centred_advantages(rewards: Float[Array, "B G"]) -> Float[Array, "B G"]:
    """The rewards less their group's mean, and no division (Dr. GRPO, Liu et al. 2025, section 3.2).

    Standardising makes groups that nearly all pass or fail weigh more than the others; this does not.

        [[1, 0, 0, 1]] -> [[0.5, -0.5, -0.5, 0.5]]
    """
    return _without_flat(rewards, rewards - rewards.mean(axis=1, keepdims=True))


def leave_one_out_advantages(rewards: Float[Array, "B G"]) -> Float[Array, "B G"]:
    """Each reward less the mean of the group's others (RLOO, Ahmadian et al. 2024, section 3.2).

    That mean does not depend on the completion it is taken from: the gradient stays unbiased. It equals G / (G - 1)
    times the centred reward.

        [[1, 0, 0, 1]] -> [[0.667, -0.667, -0.667, 0.667]]
    """
    group = rewards.shape[1]
    return centred_advantages(rewards) * (group / max(group - 1, 1))


def zero_spread(rewards: Float[Array | np.ndarray, "B G"]) -> Bool[Array | np.ndarray, "B"]:
    """Which groups have equal rewards throughout. Many of them mean that sampling or the questions are at fault."""
    return (rewards == rewards[:, :1]).all(axis=1)


def _without_flat(
    rewards: Float[Array, "B G"], advantages: Float[Array, "B G"]
) -> Float[Array, "B G"]:
    """The mean of equal numbers may differ from them by a rounding error, which a division would magnify."""
    return jnp.where(zero_spread(rewards)[:, None], 0.0, advantages)


ADVANTAGES: dict[str, Callable[[Float[Array, "B G"]], Float[Array, "B G"]]] = {
    "group": group_advantages,
    "centred": centred_advantages,
    "leave_one_out": leave_one_out_advantages,
}
