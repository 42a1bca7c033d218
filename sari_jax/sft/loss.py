"""The supervised loss: the answer's tokens, given the prompt and its audio."""

import jax
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
    """Computes the mean negative log-likelihood of the answers' tokens, in nats.

        loss = -sum_it mask_it * log p(answer_it | prompt_i, answer_i before t) / num_tokens

    An answer is a group of one completion, so SFT and GRPO share one forward pass. The prompt carries no loss. The mean
    runs over the batch's tokens, as transformers' does over its labels.

    Args:
        model: with its parameters.
        prompts: B of them.
        answers: one completion of each prompt, end token included.
        mask: true for the answers' tokens, false for padding.
        features: the audio tower's output; None computes it from the prompts' waveforms.
        num_tokens: tokens in the whole batch, if this is a micro-batch; counted from the mask if None. The losses of
            the micro-batches then add up to the batch's.

    Returns:
        The loss, and as metrics `loss` and `tokens`, how many this part has.
    """
    hidden = model.hidden(prompts, answers, features)
    logprobs, _ = chunked_logprobs(hidden, model.decoder.unembedding, answers)
    with jax.named_scope("loss"):
        num_tokens = jnp.maximum(mask.sum() if num_tokens is None else num_tokens, 1)
        loss = -jnp.sum(jnp.where(mask, logprobs, 0.0)) / num_tokens
        return loss, {"loss": loss, "tokens": mask.sum().astype(jnp.float32)}
