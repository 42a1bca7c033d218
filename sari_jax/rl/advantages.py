"""Advantages: how the rewards of a prompt's G completions compare with each other."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def group_advantages(rewards: Float[Array, "B G"], eps: float = 1e-4) -> Float[Array, "B G"]:
    """Standardises each prompt's rewards over its G completions.

        advantage_i = (reward_i - mean(reward)) / (std(reward) + eps)

    The deviation is the unbiased one, which divides by G - 1.

    >>> rewards = jnp.array([[1.0, 0.0, 0.0, 1.0], [0.1, 0.1, 0.1, 0.1]])
    >>> print(jnp.array_str(group_advantages(rewards), precision=3))
    [[ 0.866 -0.866 -0.866  0.866]
     [ 0.     0.     0.     0.   ]]

    Args:
        rewards: one for each completion.
        eps: added to the deviation, so that a tiny spread does not become a large advantage.

    Returns:
        The advantages. A group whose rewards are all equal carries no signal: its advantages are exactly zero.

    References:
        Shao et al. 2024, "DeepSeekMath", section 4.1.
    """
    deviation = rewards.std(axis=1, ddof=1, keepdims=True)
    advantages = (rewards - rewards.mean(axis=1, keepdims=True)) / (deviation + eps)
    return _zero_without_spread(rewards, advantages)


def centred_advantages(rewards: Float[Array, "B G"]) -> Float[Array, "B G"]:
    """Subtracts each group's mean reward, and does not divide.

        advantage_i = reward_i - mean(reward)

    Division by the deviation gives groups that nearly all pass or nearly all fail more weight than others. This does
    not.

    >>> rewards = jnp.array([[1.0, 0.0, 0.0, 1.0], [3.0, 0.0, 0.0, 0.0]])
    >>> print(centred_advantages(rewards))
    [[ 0.5  -0.5  -0.5   0.5 ]
     [ 2.25 -0.75 -0.75 -0.75]]

    Args:
        rewards: one for each completion.

    Returns:
        The advantages; exactly zero for a group whose rewards are all equal.

    References:
        Liu et al. 2025, "Understanding R1-Zero-Like Training" (Dr. GRPO), section 3.2.
    """
    return _zero_without_spread(rewards, rewards - rewards.mean(axis=1, keepdims=True))


def leave_one_out_advantages(rewards: Float[Array, "B G"]) -> Float[Array, "B G"]:
    """Subtracts from each reward the mean of the group's other rewards.

        advantage_i = reward_i - sum(reward_j for j != i) / (G - 1)
                    = (reward_i - mean(reward)) * G / (G - 1)

    The baseline does not depend on the completion it is subtracted from, so the gradient stays unbiased.

    >>> print(jnp.array_str(leave_one_out_advantages(jnp.array([[1.0, 0.0, 0.0, 1.0]])), precision=3))
    [[ 0.667 -0.667 -0.667  0.667]]

    Args:
        rewards: one for each completion.

    Returns:
        The advantages; exactly zero for a group whose rewards are all equal, and for a group of one.

    References:
        Ahmadian et al. 2024, "Back to Basics" (RLOO), section 3.2.
    """
    group = rewards.shape[1]
    return centred_advantages(rewards) * (group / max(group - 1, 1))


def zero_spread(rewards: Float[Array | np.ndarray, "B G"]) -> Bool[Array | np.ndarray, "B"]:
    """Returns which groups have equal rewards throughout.

    The advantages of such a group are zero. If many groups are like this, the sampling or the questions are at fault.

    >>> print(zero_spread(jnp.array([[1.0, 1.0], [1.0, 0.0]])))
    [ True False]

    Args:
        rewards: one for each completion, on the device or on the host.

    Returns:
        True for each group without spread.
    """
    return (rewards == rewards[:, :1]).all(axis=1)


def _zero_without_spread(
    rewards: Float[Array, "B G"], advantages: Float[Array, "B G"]
) -> Float[Array, "B G"]:
    """Sets the advantages of groups without spread to exactly zero.

    The mean of equal numbers may differ from them by a rounding error, which a division would magnify.
    """
    return jnp.where(zero_spread(rewards)[:, None], 0.0, advantages)


ADVANTAGES: dict[str, Callable[[Float[Array, "B G"]], Float[Array, "B G"]]] = {
    "group": group_advantages,
    "centred": centred_advantages,
    "leave_one_out": leave_one_out_advantages,
}
