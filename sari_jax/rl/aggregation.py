"""How much each token counts in a batch's loss: a weight for every token, zero where the mask hides it.

A part of a batch is weighted by the whole batch's counts, so that the parts' losses add up to its own. A row without
tokens, which pads a batch, counts nowhere.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Weights = Callable[[Bool[Array, "B G T"], Int[Array, ""], Int[Array, ""]], Float[Array, "B G T"]]


def sequence_mean(
    mask: Bool[Array, "B G T"], num_completions: Int[Array, ""], num_tokens: Int[Array, ""]
) -> Float[Array, "B G T"]:
    """Tokens averaged within a completion, then completions over the batch (GRPO, Shao et al. 2024, equation 3).

    Completions weigh the same however long, so that a token of a long one weighs less.
    """
    return mask / jnp.maximum(mask.sum(axis=-1, keepdims=True), 1) / jnp.maximum(num_completions, 1)


def token_mean(
    mask: Bool[Array, "B G T"], num_completions: Int[Array, ""], num_tokens: Int[Array, ""]
) -> Float[Array, "B G T"]:
    """All of the batch's tokens weigh the same (DAPO, Yu et al. 2025, equation 8).

    The equation divides by one group's tokens, the authors' code, and this, by those of the whole batch.
    """
    return mask / jnp.maximum(num_tokens, 1)


def constant_length(
    mask: Bool[Array, "B G T"], num_completions: Int[Array, ""], num_tokens: Int[Array, ""]
) -> Float[Array, "B G T"]:
    """Every completion's tokens added and divided by the longest allowed, T (Dr. GRPO, Liu et al. 2025, listing 1).

    No length is favoured: a wrong answer does not get cheaper by being long.
    """
    return mask / (mask.shape[-1] * jnp.maximum(num_completions, 1))


def sequence_sum(
    mask: Bool[Array, "B G T"], num_completions: Int[Array, ""], num_tokens: Int[Array, ""]
) -> Float[Array, "B G T"]:
    """Every completion's tokens added: it is one action (RLOO, Ahmadian et al. 2024, section 3.1)."""
    return mask / jnp.maximum(num_completions, 1)


AGGREGATIONS: dict[str, Weights] = {
    "sequence_mean": sequence_mean,
    "token_mean": token_mean,
    "constant_length": constant_length,
    "sequence_sum": sequence_sum,
}
