"""The GRPO objective (Shao et al. 2024, equations 3 and 4)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def grpo_loss(
    logprobs: Float[Array, "B G T"],
    old_logprobs: Float[Array, "B G T"],
    reference_logprobs: Float[Array, "B G T"],
    advantages: Float[Array, "B G"],
    mask: Bool[Array, "B G T"],
    *,
    clip_epsilon: float = 0.2,
    kl_coefficient: float = 0.04,
    completions: Int[Array, ""] | None = None,
    tokens: Int[Array, ""] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Clipped ratio times advantage, minus a k3 KL to the reference.

    Tokens are averaged within a completion, then completions over the batch. A group whose advantages are
    all NaN-free zeros still feels the KL. A row without tokens (padding of the batch) counts nowhere.

    Args:
        old_logprobs: under the policy that sampled; pass `stop_gradient(logprobs)` for one update per rollout.
        completions, tokens: of the whole batch, where this is a part of it: the parts' losses and metrics then add up
            to the batch's.

    Returns:
        The loss, and `kl` (mean k3 per token), `clip_fraction` and `ratio`.

    References:
        k3: Schulman, "Approximating KL divergence" (2020): exp(d) - d - 1 with d = reference - policy.
    """
    weight = mask / jnp.maximum(mask.sum(axis=-1, keepdims=True), 1)
    completions = mask.any(axis=-1).sum() if completions is None else completions
    weight = weight / jnp.maximum(completions, 1)

    ratio = jnp.exp(jnp.where(mask, logprobs - old_logprobs, 0.0))
    clipped = jnp.clip(ratio, 1 - clip_epsilon, 1 + clip_epsilon)
    gain = jnp.minimum(ratio * advantages[..., None], clipped * advantages[..., None])
    distance = jnp.where(mask, reference_logprobs - logprobs, 0.0)
    kl = jnp.exp(distance) - distance - 1

    loss = -jnp.sum(weight * (gain - kl_coefficient * kl))
    tokens = jnp.maximum(mask.sum() if tokens is None else tokens, 1)
    outside = mask & (jnp.abs(ratio - 1) > clip_epsilon)
    metrics = {
        "loss": loss,
        "kl": jnp.sum(kl) / tokens,
        "ratio": jnp.sum(jnp.where(mask, ratio, 0.0)) / tokens,
        "clip_fraction": outside.sum() / tokens,
    }
    return loss, jax.lax.stop_gradient(metrics)
