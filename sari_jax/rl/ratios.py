"""How much likelier a completion has become since it was sampled, by token or as a whole; and what corrects a sampler
that does not compute as the trainer does."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def token_ratios(
    logprobs: Float[Array, "B G T"], old_logprobs: Float[Array, "B G T"], mask: Bool[Array, "B G T"]
) -> Float[Array, "B G T"]:
    """Each token's own probability ratio (Schulman et al. 2017, equation 6); 1 where the mask hides it."""
    return jnp.exp(jnp.where(mask, logprobs - old_logprobs, 0.0))


def sequence_ratios(
    logprobs: Float[Array, "B G T"], old_logprobs: Float[Array, "B G T"], mask: Bool[Array, "B G T"]
) -> Float[Array, "B G T"]:
    """The geometric mean of a completion's token ratios, at each of its tokens (GSPO, Zheng et al. 2025, equation 7).

    (p(y) / p_old(y)) ** (1 / |y|): the reward is given to the whole completion, and so is the clipping.
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
    """min(p_trainer / p_sampler, cap) of each token, both under the policy that sampled; a constant, no gradient.

    Sampler and trainer compute the same policy in other shapes and orders, and so not the same numbers: what was
    drawn came from the sampler's. (Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL
    Training"; they name the cap C.)
    """
    weight = jnp.exp(jnp.where(mask, old_logprobs - sampler_logprobs, 0.0))
    return jax.lax.stop_gradient(jnp.minimum(weight, cap))


RATIOS: dict[str, Callable[..., Float[Array, "B G T"]]] = {
    "token": token_ratios,
    "sequence": sequence_ratios,
}
