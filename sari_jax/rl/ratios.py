"""Probability ratios between the policy that learns and the policy that sampled, by token or by completion.

`truncated_importance` corrects for a sampler whose numbers differ from the trainer's.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def token_ratios(
    logprobs: Float[Array, "B G T"], old_logprobs: Float[Array, "B G T"], mask: Bool[Array, "B G T"]
) -> Float[Array, "B G T"]:
    """Computes each token's own probability ratio.

        ratio_it = p(y_it) / p_old(y_it)

    >>> new = jnp.log(jnp.array([[[0.5, 0.25, 0.25]]]))
    >>> old = jnp.log(jnp.array([[[0.25, 0.5, 0.125]]]))
    >>> print(jnp.array_str(token_ratios(new, old, jnp.array([[[True, True, False]]])), precision=3))
    [[[2.  0.5 1. ]]]

    Args:
        logprobs: under the policy that learns.
        old_logprobs: under the policy that sampled.
        mask: true for the tokens that were sampled.

    Returns:
        The ratios; 1 where the mask hides a token.

    References:
        Schulman et al. 2017, "Proximal Policy Optimization Algorithms", equation 6.
    """
    return jnp.exp(jnp.where(mask, logprobs - old_logprobs, 0.0))


def sequence_ratios(
    logprobs: Float[Array, "B G T"], old_logprobs: Float[Array, "B G T"], mask: Bool[Array, "B G T"]
) -> Float[Array, "B G T"]:
    """Computes the geometric mean of a completion's token ratios, repeated at each of its tokens.

        ratio_it = (p(y_i) / p_old(y_i)) ** (1 / length_i)

    The reward is given to the whole completion, and so is the clipping.

    >>> new = jnp.log(jnp.array([[[0.5, 0.5, 0.25]]]))
    >>> old = jnp.log(jnp.array([[[0.25, 0.5, 0.125]]]))
    >>> print(jnp.array_str(sequence_ratios(new, old, jnp.array([[[True, True, False]]])), precision=3))
    [[[1.414 1.414 1.   ]]]

    Args:
        logprobs: under the policy that learns.
        old_logprobs: under the policy that sampled.
        mask: true for the tokens that were sampled.

    Returns:
        The ratios; 1 where the mask hides a token.

    References:
        Zheng et al. 2025, "Group Sequence Policy Optimization" (GSPO), equation 7.
    """
    change = jnp.where(mask, logprobs - old_logprobs, 0.0).sum(axis=-1, keepdims=True)
    mean = change / jnp.maximum(mask.sum(axis=-1, keepdims=True), 1)
    return jnp.where(mask, jnp.exp(mean), 1.0)


def truncated_importance(
    old_logprobs: Float[Array, "B G T"],
    sampler_logprobs: Float[Array, "B G T"],
    mask: Bool[Array, "B G T"],
    cap: float,
) -> Float[Array, "B G T"]:
    """Computes the importance weight of each token, cut at `cap`.

        weight_it = min(p_trainer(y_it) / p_sampler(y_it), cap)

    Sampler and trainer compute the same policy in different shapes and orders, so their probabilities differ slightly.
    The tokens were drawn from the sampler's. No gradient flows through the weight.

    >>> trainer = jnp.log(jnp.array([[[0.5, 0.25, 0.25]]]))
    >>> sampler = jnp.log(jnp.array([[[0.25, 0.5, 0.125]]]))
    >>> mask = jnp.array([[[True, True, False]]])
    >>> print(jnp.array_str(truncated_importance(trainer, sampler, mask, cap=1.5), precision=3))
    [[[1.5 0.5 1. ]]]

    Args:
        old_logprobs: the trainer's, under the policy that sampled.
        sampler_logprobs: the sampler's, under the same policy.
        mask: true for the tokens that were sampled.
        cap: the largest weight, called C in the reference.

    Returns:
        The weights; min(1, cap) where the mask hides a token.

    References:
        Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training".
    """
    weight = jnp.exp(jnp.where(mask, old_logprobs - sampler_logprobs, 0.0))
    return jax.lax.stop_gradient(jnp.minimum(weight, cap))


RATIOS: dict[str, Callable[..., Float[Array, "B G T"]]] = {
    "token": token_ratios,
    "sequence": sequence_ratios,
}
