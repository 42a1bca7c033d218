"""Log-probabilities of given tokens without ever holding an array of [tokens, vocabulary]."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sari_jax.parallel.mesh import constrain, num_data_shards


def chunked_logprobs(
    hidden: Float[Array, "B *G T E"],
    unembedding: Float[Array, "V E"],
    targets: Int[Array, "B *G T"],
    *,
    temperature: float = 1.0,
    chunk: int = 1024,
) -> tuple[Float[Array, "B *G T"], Float[Array, "B *G T"]]:
    """log p(target) and the entropy of p = softmax(hidden @ unembedding.T / temperature), in nats.

    Tokens go through the head about `chunk` at a time on each device; the backward pass computes a chunk's logits
    again instead of keeping them, so peak memory is [chunk, V] whatever the batch. Chunks are places of all
    completions, so that each device goes through its own rows and none are moved.
    """
    size = targets.shape[-1]
    rows = targets.size // size // num_data_shards()
    places = max(1, min(size, chunk // max(rows, 1)))
    padding = -size % places
    head = unembedding.astype(hidden.dtype)

    def chunks(x: Array) -> Array:
        """[B, ..., T, ...] -> [T / places, B, ..., places, ...]"""
        axis = targets.ndim - 1
        x = jnp.pad(x, [(0, padding if i == axis else 0) for i in range(x.ndim)])
        x = x.reshape(*x.shape[:axis], -1, places, *x.shape[axis + 1 :])
        return constrain(jnp.moveaxis(x, axis, 0), None, "batch")

    @jax.checkpoint
    def one(inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        h, t = inputs[0].reshape(-1, hidden.shape[-1]), inputs[1].reshape(-1)
        logits = jnp.einsum("ne,ve->nv", h, head, preferred_element_type=jnp.float32)
        logits = constrain(logits / temperature, "batch", "vocabulary")
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, t[:, None], axis=-1)[:, 0]
        mean_logit = jnp.sum(jax.nn.softmax(logits) * logits, axis=-1)
        return chosen - normaliser, normaliser - mean_logit

    def whole(x: Array) -> Array:
        """[T / places, N] -> [B, ..., T]"""
        x = jnp.moveaxis(x.reshape(-1, *targets.shape[:-1], places), 0, -2)
        return x.reshape(*targets.shape[:-1], -1)[..., :size]

    logprobs, entropies = jax.lax.map(one, (chunks(hidden), chunks(targets)))
    return whole(logprobs), whole(entropies)
