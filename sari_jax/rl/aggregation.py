"""Aggregations: how much each token weighs in a batch's loss.

Each function returns a weight for every token, zero where the mask hides it. The loss is sum(weight * token loss).

A micro-batch is weighted by the whole batch's counts, so that the losses of the micro-batches add up to the batch's
loss. A completion without tokens, which pads a batch, has no weight. In the examples below, one prompt has two
completions of one and three tokens, and T is 4.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Weights = Callable[[Bool[Array, "B G T"], Int[Array, ""], Int[Array, ""]], Float[Array, "B G T"]]


def sequence_mean(
    mask: Bool[Array, "B G T"], num_completions: Int[Array, ""], num_tokens: Int[Array, ""]
) -> Float[Array, "B G T"]:
    """Averages tokens within a completion, then completions over the batch.

        weight_it = 1 / (num_completions * length_i)

    Every completion weighs the same, so a token of a long completion weighs less than one of a short completion.

    >>> mask = jnp.arange(4) < jnp.array([[[1], [3]]])
    >>> print(jnp.array_str(sequence_mean(mask, jnp.array(2), jnp.array(4)), precision=3))
    [[[0.5   0.    0.    0.   ]
      [0.167 0.167 0.167 0.   ]]]

    Args:
        mask: true for the tokens that were sampled.
        num_completions: completions in the whole batch.
        num_tokens: tokens in the whole batch; unused here.

    Returns:
        The weights.

    References:
        Shao et al. 2024, "DeepSeekMath" (GRPO), equation 3.
    """
    return mask / jnp.maximum(mask.sum(axis=-1, keepdims=True), 1) / jnp.maximum(num_completions, 1)


def token_mean(
    mask: Bool[Array, "B G T"], num_completions: Int[Array, ""], num_tokens: Int[Array, ""]
) -> Float[Array, "B G T"]:
    """Averages over all tokens of the batch.

        weight_it = 1 / num_tokens

    The paper's equation divides by the tokens of one group. The authors' code divides by those of the whole batch, and
    so does this function.

    >>> mask = jnp.arange(4) < jnp.array([[[1], [3]]])
    >>> print(token_mean(mask, jnp.array(2), jnp.array(4)))
    [[[0.25 0.   0.   0.  ]
      [0.25 0.25 0.25 0.  ]]]

    Args:
        mask: true for the tokens that were sampled.
        num_completions: completions in the whole batch; unused here.
        num_tokens: tokens in the whole batch.

    Returns:
        The weights.

    References:
        Yu et al. 2025, "DAPO", equation 8.
    """
    return mask / jnp.maximum(num_tokens, 1)


def constant_length(
    mask: Bool[Array, "B G T"], num_completions: Int[Array, ""], num_tokens: Int[Array, ""]
) -> Float[Array, "B G T"]:
    """Sums the tokens of a completion and divides by T, the longest length that is allowed.

        weight_it = 1 / (num_completions * T)

    No length is favoured: a wrong answer does not get cheaper by being long.

    >>> mask = jnp.arange(4) < jnp.array([[[1], [3]]])
    >>> print(constant_length(mask, jnp.array(2), jnp.array(4)))
    [[[0.125 0.    0.    0.   ]
      [0.125 0.125 0.125 0.   ]]]

    Args:
        mask: true for the tokens that were sampled.
        num_completions: completions in the whole batch.
        num_tokens: tokens in the whole batch; unused here.

    Returns:
        The weights.

    References:
        Liu et al. 2025, "Understanding R1-Zero-Like Training" (Dr. GRPO), listing 1.
    """
    return mask / (mask.shape[-1] * jnp.maximum(num_completions, 1))


def sequence_sum(
    mask: Bool[Array, "B G T"], num_completions: Int[Array, ""], num_tokens: Int[Array, ""]
) -> Float[Array, "B G T"]:
    """Sums the tokens of a completion, which counts as one action.

        weight_it = 1 / num_completions

    >>> mask = jnp.arange(4) < jnp.array([[[1], [3]]])
    >>> print(sequence_sum(mask, jnp.array(2), jnp.array(4)))
    [[[0.5 0.  0.  0. ]
      [0.5 0.5 0.5 0. ]]]

    Args:
        mask: true for the tokens that were sampled.
        num_completions: completions in the whole batch.
        num_tokens: tokens in the whole batch; unused here.

    Returns:
        The weights.

    References:
        Ahmadian et al. 2024, "Back to Basics" (RLOO), section 3.1.
    """
    return mask / jnp.maximum(num_completions, 1)


AGGREGATIONS: dict[str, Weights] = {
    "sequence_mean": sequence_mean,
    "token_mean": token_mean,
    "constant_length": constant_length,
    "sequence_sum": sequence_sum,
}
