"""One attention function for the encoder, for training and for decoding.

Queries come in groups: `q` is [B, G, T, H, D], the T query positions of G completions of each of B
prompts. They attend jointly to one or more contexts:

    shared   keys [B, K, S, D]     one copy per prompt, read once for all G (the prefix)
    own      keys [B, G, K, S, D]  one copy per completion (itself so far)

so that nothing of the prompt is repeated G times. The softmax runs over all contexts together, which
makes the result equal to attending to the concatenated keys of a repeated prompt.
"""

import functools
from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

MASKED = -1e30
BLOCK = 512  # queries whose scores are held at once


@flax.struct.dataclass
class Context:
    """Keys, values and who may look at them.

    Heads stand before positions, so that a decode step reads the stored keys in the order in which they lie.

    Attributes:
        keys, values: [B, K, S, D] shared by a prompt's group, or [B, G, K, S, D] of its own.
        visible: how many keys there are to see, for each prompt [B] or for all []; None: all S.
        causal: query t sees keys up to the t-th.
    """

    keys: Array
    values: Array
    visible: Int[Array, "..."] | None = None
    causal: bool = flax.struct.field(pytree_node=False, default=False)


Attend = Callable[[Array, tuple[Context, ...]], Array]  # what `attend` and the kernels are


def attend(
    queries: Float[Array, "B G T H D"], contexts: tuple[Context, ...]
) -> Float[Array, "B G T H*D"]:
    """Softmax attention over all contexts jointly; grouped-query where H is a multiple of K.

    Each context is one plain batched matrix product: the G * T queries of a prompt against its shared keys, or each
    completion's T against its own. The parts meet as in online softmax (Milakov & Gimelshein 2018), by their maxima
    and sums, so that scores are neither concatenated nor transposed. Scores are float32 whatever the inputs are.

    A row with nothing to attend to gives a mean of its values and not NaN; such rows are padding and nobody reads them.

    More than `BLOCK` queries of a group go in blocks: [H, G * T, S] scores are never held at once, and a causal block
    leaves the keys after it alone, which saves up to half of the work. Scores are computed again for the gradient,
    which is cheaper than keeping those of every layer.
    """
    b, g, t, h, d = queries.shape
    size = -(-t // -(-g * t // BLOCK))
    block = jax.checkpoint(_block, static_argnums=2)
    blocks = [block(queries[:, :, i : i + size], contexts, i) for i in range(0, t, size)]
    return jnp.concatenate(blocks, axis=2)


def _block(
    queries: Float[Array, "B G T H D"], contexts: tuple[Context, ...], start: int
) -> Float[Array, "B G T H*D"]:
    """Of the queries from the `start`-th on."""
    return join([part(queries, context, start) for context in contexts]).astype(queries.dtype)


Part = tuple[Float[Array, "B G T K R D"], Float[Array, "B G T K R"], Float[Array, "B G T K R"]]


def part(queries: Float[Array, "B G T H D"], context: Context, start: int = 0) -> Part:
    """What one context contributes: weighted values, their mass and the highest score."""
    b, g, t, h, d = queries.shape
    keys, values, visible = context.keys, context.values, context.visible
    if context.causal:
        keys, values = (x[..., : start + t, :] for x in (keys, values))
    kv, size = keys.shape[-3], keys.shape[-2]
    q = queries.reshape(b, g, t, kv, h // kv, d)
    # Rows of the one matrix product per key head: [B, K, R * G * T, D], or [B, G, K, R * T, D].
    order = (0, 3, 4, 1, 2, 5) if keys.ndim == 4 else (0, 1, 3, 4, 2, 5)
    rows = q.transpose(order)
    flat = rows.reshape(*keys.shape[:-2], -1, d)
    scores = jnp.matmul(flat, jnp.swapaxes(keys, -1, -2), preferred_element_type=jnp.float32)
    scores = d**-0.5 * scores.reshape(*rows.shape[:-1], size)
    places = jnp.arange(size)
    if context.causal:
        scores = jnp.where(start + jnp.arange(t)[:, None] >= places, scores, MASKED)
    if visible is not None:
        scores = jnp.where(places < visible.reshape(-1, *[1] * 5), scores, MASKED)
    # The highest cancels in the end and so carries no gradient.
    highest = jax.lax.stop_gradient(scores.max(axis=-1))
    weights = jnp.exp(scores - highest[..., None])
    out = jnp.matmul(
        weights.reshape(*flat.shape[:-1], size).astype(q.dtype),
        values,
        preferred_element_type=jnp.float32,
    )
    back = [order.index(axis) for axis in range(6)]
    return (
        out.reshape(rows.shape).transpose(back),
        weights.sum(axis=-1).transpose(back[:5]),
        highest.transpose(back[:5]),
    )


def join(parts: Sequence[Part]) -> Float[Array, "B G T E"]:
    """One softmax over all of them."""
    top = functools.reduce(jnp.maximum, [highest for _, _, highest in parts])
    scales = [jnp.exp(highest - top) for _, _, highest in parts]
    total = sum(mass * scale for (_, mass, _), scale in zip(parts, scales, strict=True))
    out = sum(
        value * (scale / total)[..., None]
        for (value, _, _), scale in zip(parts, scales, strict=True)
    )
    return out.reshape(*out.shape[:3], -1)


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
