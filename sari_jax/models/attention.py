"""One attention function for the encoder, for training and for decoding.

Queries come in groups: `q` is [B, G, T, H, D], the T query positions of G completions of each of B
prompts. They attend jointly to one or more contexts:

    shared   keys [B, S, K, D]     one copy per prompt, read once for all G (the prefix)
    own      keys [B, G, S, K, D]  one copy per completion (itself so far)

so that nothing of the prompt is repeated G times. The softmax runs over all contexts together, which
makes the result equal to attending to the concatenated keys of a repeated prompt.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

MASKED = -1e30


class Context(NamedTuple):
    """Keys, values and who may look at them.

    Attributes:
        keys, values: [B, S, K, D] shared by a prompt's group, or [B, G, S, K, D] of its own.
        mask: boolean, broadcastable to [B, G, T, S]; true where a query may attend.
    """

    keys: Array
    values: Array
    mask: Bool[Array, "..."]


def attend(
    queries: Float[Array, "B G T H D"], contexts: tuple[Context, ...]
) -> Float[Array, "B G T H*D"]:
    """Softmax attention over all contexts jointly; grouped-query where H is a multiple of K.

    Scores and the softmax are float32 whatever the inputs are. A row with nothing to attend to gives
    the mean of its values and not NaN; such rows are padding and nobody reads them.
    """
    b, g, t, h, d = queries.shape
    kv_heads = contexts[0].keys.shape[-2]
    q = (queries * d**-0.5).reshape(b, g, t, kv_heads, h // kv_heads, d)

    scores = []
    for keys, _, mask in contexts:
        layout = "bskd" if keys.ndim == 4 else "bgskd"
        score = jnp.einsum(f"bgtkrd,{layout}->bkrgts", q, keys, preferred_element_type=jnp.float32)
        scores.append(jnp.where(mask[:, None, None], score, MASKED))
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1).astype(queries.dtype)

    out, start = 0.0, 0
    for keys, values, _ in contexts:
        layout = "bskd" if keys.ndim == 4 else "bgskd"
        size = keys.shape[-3]
        part = jax.lax.slice_in_dim(weights, start, start + size, axis=-1)
        out += jnp.einsum(f"bkrgts,{layout}->bgtkrd", part, values)
        start += size
    return out.reshape(b, g, t, h * d)


def rotary(
    positions: Array, head_dim: int, theta: float
) -> tuple[Float[Array, "... D"], Float[Array, "... D"]]:
    """Cosines and sines of rotary embeddings (Su et al. 2021) in the two-halves layout of Qwen2."""
    frequencies = theta ** -(jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, "B G T H D"], rope: tuple[Array, Array]) -> Float[Array, "B G T H D"]:
    """Rotates each pair (x[i], x[i + D/2]) by its position's angle."""
    cos, sin = (part[..., None, :] for part in rope)
    left, right = jnp.split(x, 2, axis=-1)
    return (x * cos + jnp.concatenate([-right, left], axis=-1) * sin).astype(x.dtype)
