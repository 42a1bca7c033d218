"""One attention function for the encoder, for training and for decoding.

Queries come in groups: `q` is [B, G, T, H, D], the T query positions of G completions of each of B
prompts. They attend jointly to one or more contexts:

    shared   keys [B, S, K, D]     one copy per prompt, read once for all G (the prefix)
    own      keys [B, G, S, K, D]  one copy per completion (itself so far)

so that nothing of the prompt is repeated G times. The softmax runs over all contexts together, which
makes the result equal to attending to the concatenated keys of a repeated prompt.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

MASKED = -1e30
LONG, BLOCK = 2048, 1024  # queries; a clip of 30 s and its question are not long


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

    Each context is one plain batched matrix product: the G * T queries of a prompt against its shared keys, or each
    completion's T against its own. The parts meet as in online softmax (Milakov & Gimelshein 2018), by their maxima
    and sums, so that scores are neither concatenated nor transposed. Scores are float32 whatever the inputs are.

    A row with nothing to attend to gives a mean of its values and not NaN; such rows are padding and nobody reads them.

    More than `LONG` queries go in blocks, whose scores are computed again for the gradient: minutes of sound would else
    need [H, T, S] of them at once.
    """
    t = queries.shape[2]
    if t <= LONG:
        return _attend(queries, contexts)
    count = -(-t // BLOCK)
    size = -(-t // count)

    def blocks(x: Array, axis: int) -> Array:
        widths = [(0, 0)] * x.ndim
        widths[axis] = (0, count * size - t)
        x = jnp.pad(x, widths)
        return jnp.moveaxis(x.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :]), axis, 0)

    # A mask with one row for all queries is no block's own.
    own = [context.mask.shape[-2] == t for context in contexts]
    masks = [blocks(c.mask, c.mask.ndim - 2) for c, mine in zip(contexts, own, strict=True) if mine]

    @jax.checkpoint
    def one(inputs: tuple[Array, list[Array]]) -> Array:
        q, masks = inputs
        mine = iter(masks)
        here = (
            c._replace(mask=next(mine)) if is_own else c
            for c, is_own in zip(contexts, own, strict=True)
        )
        return _attend(q, tuple(here))

    out = jnp.moveaxis(jax.lax.map(one, (blocks(queries, 2), masks)), 0, 2)
    return out.reshape(*out.shape[:2], count * size, -1)[:, :, :t]


def _attend(queries: Array, contexts: tuple[Context, ...]) -> Array:
    b, g, t, h, d = queries.shape
    kv_heads = contexts[0].keys.shape[-2]
    q = queries.reshape(b, g, t, kv_heads, h // kv_heads, d)
    parts = [
        _shared(q, *context) if context.keys.ndim == 4 else _own(q, *context)
        for context in contexts
    ]

    top = functools.reduce(jnp.maximum, [highest for _, _, highest in parts])
    scales = [jnp.exp(highest - top) for _, _, highest in parts]
    total = sum(mass * scale for (_, mass, _), scale in zip(parts, scales, strict=True))
    out = sum(
        value * (scale / total)[..., None]
        for (value, _, _), scale in zip(parts, scales, strict=True)
    )
    return out.reshape(b, g, t, h * d).astype(queries.dtype)


Part = tuple[Float[Array, "B G T K R D"], Float[Array, "B G T K R"], Float[Array, "B G T K R"]]


def _shared(q: Float[Array, "B G T K R D"], keys: Array, values: Array, mask: Array) -> Part:
    """Weighted values, their mass and the highest score, against one copy of keys per prompt."""
    b, g, t, kv, r, d = q.shape
    rows = q.transpose(0, 3, 4, 1, 2, 5).reshape(b, kv, r * g * t, d)
    scores = jnp.matmul(rows, keys.transpose(0, 2, 3, 1), preferred_element_type=jnp.float32)
    scores = d**-0.5 * scores.reshape(b, kv, r, g, t, -1)
    weights, mass, highest = _exponentials(jnp.where(mask[:, None, None], scores, MASKED))
    out = jnp.matmul(
        weights.reshape(b, kv, r * g * t, -1).astype(q.dtype),
        values.transpose(0, 2, 1, 3),
        preferred_element_type=jnp.float32,
    )
    back = lambda x: x.transpose(0, 3, 4, 1, 2, *range(5, x.ndim))  # noqa: E731
    return back(out.reshape(b, kv, r, g, t, d)), back(mass), back(highest)


def _own(q: Float[Array, "B G T K R D"], keys: Array, values: Array, mask: Array) -> Part:
    """The same against each completion's own keys."""
    b, g, t, kv, r, d = q.shape
    rows = q.transpose(0, 1, 3, 4, 2, 5).reshape(b, g, kv, r * t, d)
    scores = jnp.matmul(rows, keys.transpose(0, 1, 3, 4, 2), preferred_element_type=jnp.float32)
    scores = d**-0.5 * scores.reshape(b, g, kv, r, t, -1)
    weights, mass, highest = _exponentials(jnp.where(mask[:, :, None, None], scores, MASKED))
    out = jnp.matmul(
        weights.reshape(b, g, kv, r * t, -1).astype(q.dtype),
        values.transpose(0, 1, 3, 2, 4),
        preferred_element_type=jnp.float32,
    )
    back = lambda x: x.transpose(0, 1, 4, 2, 3, *range(5, x.ndim))  # noqa: E731
    return back(out.reshape(b, g, kv, r, t, d)), back(mass), back(highest)


def _exponentials(scores: Float[Array, "... S"]) -> tuple[Array, Array, Array]:
    """exp(scores - highest), their sum, and the highest; it cancels in the end and so carries no gradient."""
    highest = jax.lax.stop_gradient(scores.max(axis=-1))
    weights = jnp.exp(scores - highest[..., None])
    return weights, weights.sum(axis=-1), highest


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
