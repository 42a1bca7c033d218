"""Log-probabilities of given tokens, computed without an array of [tokens, vocabulary]."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sari_jax.parallel.mesh import constrain, num_data_shards


@jax.named_scope("head")
def chunked_logprobs(
    hidden: Float[Array, "B *G T E"],
    unembedding: Float[Array, "V E"],
    targets: Int[Array, "B *G T"],
    *,
    temperature: float = 1.0,
    chunk: int = 1024,
) -> tuple[Float[Array, "B *G T"], Float[Array, "B *G T"]]:
    """Returns log p(target) and the entropy of p = softmax(hidden @ unembedding.T / temperature), in nats.

    Each device computes the logits of about `chunk` tokens at a time, and the backward pass computes them again. So
    peak memory is [chunk, V] for any batch. A chunk holds the same positions of all completions: each device computes
    its own rows, and no row moves to another device.
    """
    size = targets.shape[-1]
    rows = targets.size // size // num_data_shards()
    positions = max(1, min(size, chunk // max(rows, 1)))
    padding = -size % positions
    head = unembedding.astype(hidden.dtype)

    def chunks(x: Array) -> Array:
        """[B, ..., T, ...] -> [T / positions, B, ..., positions, ...]"""
        axis = targets.ndim - 1
        x = jnp.pad(x, [(0, padding if i == axis else 0) for i in range(x.ndim)])
        x = x.reshape(*x.shape[:axis], -1, positions, *x.shape[axis + 1 :])
        return constrain(jnp.moveaxis(x, axis, 0), None, "batch")

    @jax.checkpoint
    def chunk_logprobs(inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        h = inputs[0].reshape(-1, hidden.shape[-1])
        t = inputs[1].reshape(-1)
        logits = jnp.einsum("ne,ve->nv", h, head, preferred_element_type=jnp.float32)
        logits = constrain(logits / temperature, "batch", "vocabulary")
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, t[:, None], axis=-1)[:, 0]
        mean_logit = jnp.sum(jax.nn.softmax(logits) * logits, axis=-1)
        return chosen - normaliser, normaliser - mean_logit

    def unchunk(x: Array) -> Array:
        """[T / positions, N] -> [B, ..., T]"""
        x = jnp.moveaxis(x.reshape(-1, *targets.shape[:-1], positions), 0, -2)
        return x.reshape(*targets.shape[:-1], -1)[..., :size]

    logprobs, entropies = jax.lax.map(chunk_logprobs, (chunks(hidden), chunks(targets)))
    return unchunk(logprobs), unchunk(entropies)
