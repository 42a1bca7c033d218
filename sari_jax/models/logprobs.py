"""Log-probabilities of given tokens without ever holding an array of [tokens, vocabulary]."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def chunked_logprobs(
    hidden: Float[Array, "... E"],
    unembedding: Float[Array, "V E"],
    targets: Int[Array, "..."],
    *,
    temperature: float = 1.0,
    chunk: int = 1024,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """log p(target) and the entropy of p = softmax(hidden @ unembedding.T / temperature), in nats.

    Tokens go through the head `chunk` at a time; the backward pass computes a chunk's logits again
    instead of keeping them, so peak memory is [chunk, V] whatever the batch.
    """
    shape = targets.shape
    flat_hidden, flat_targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    count = flat_targets.shape[0]
    chunk = min(chunk, count)
    padding = -count % chunk
    flat_hidden = jnp.pad(flat_hidden, ((0, padding), (0, 0)))
    flat_targets = jnp.pad(flat_targets, (0, padding))
    head = unembedding.astype(hidden.dtype)

    @jax.checkpoint
    def one(inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        h, t = inputs
        logits = jnp.einsum("ne,ve->nv", h, head, preferred_element_type=jnp.float32) / temperature
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, t[:, None], axis=-1)[:, 0]
        mean_logit = jnp.sum(jax.nn.softmax(logits) * logits, axis=-1)
        return chosen - normaliser, normaliser - mean_logit

    logprobs, entropies = jax.lax.map(
        one, (flat_hidden.reshape(-1, chunk, hidden.shape[-1]), flat_targets.reshape(-1, chunk))
    )
    return logprobs.reshape(-1)[:count].reshape(shape), entropies.reshape(-1)[:count].reshape(shape)
