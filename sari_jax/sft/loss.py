"""Supervised loss: the answer's tokens, given the prompt and its sound."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sari_jax.models.audio_lm import AudioLM, Prompts
from sari_jax.models.logprobs import chunked_logprobs


def sft_loss(
    model: AudioLM,
    prompts: Prompts,
    answers: Int[Array, "B 1 T"],
    mask: Bool[Array, "B 1 T"],
    features: Float[Array, "B A F D"] | None = None,
    num_tokens: Int[Array, ""] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Mean negative log-likelihood over the answers' tokens, in nats.

    An answer is a group of one completion, so that both stages go through the same forward pass. The prompt
    carries no loss. The mean runs over the batch's tokens, as transformers' does over its labels.

    Args:
        num_tokens: of the whole batch, where this is a part of it: the parts' losses add up to the batch's.
    """
    hidden = model.hidden(prompts, answers, features)
    logprobs, _ = chunked_logprobs(hidden, model.decoder.unembedding, answers)
    num_tokens = jnp.maximum(mask.sum() if num_tokens is None else num_tokens, 1)
    loss = -jnp.sum(jnp.where(mask, logprobs, 0.0)) / num_tokens
    return loss, {"loss": loss, "tokens": mask.sum().astype(jnp.float32)}
