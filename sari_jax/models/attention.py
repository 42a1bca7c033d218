"""One attention function for the encoder, for training and for decoding.

Queries come in groups: `q` is [B, G, T, H, D], the T query positions of G completions of each of B prompts. They
attend jointly to one or more contexts:

    prompt      keys [B, K, S, D]     one copy per prompt, read once for all its G completions
    completion  keys [B, G, K, S, D]  one copy per completion: its own tokens so far

So the prompt's keys are never repeated G times. One softmax runs over all contexts, and the result equals attention to
the concatenated keys of a repeated prompt.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

MASKED = -1e30
# Queries of a group whose scores are held at once.
BLOCK = 512


@flax.struct.dataclass
class Context:
    """Keys and values, and the rule for the queries that may attend to them.

    The axis of heads comes before that of positions, so that a decode step reads cached keys in memory order.

    Attributes:
        keys, values: [B, K, S, D] shared by a prompt's group, or [B, G, K, S, D] for each completion.
        visible: the number of keys that may be attended to, for each prompt [B] or for all []; None: all S.
        causal: whether query t attends only to keys up to the t-th.
    """

    keys: Array
    values: Array
    visible: Int[Array, "..."] | None = None
    causal: bool = flax.struct.field(pytree_node=False, default=False)


# The signature of `attend` and of the kernels.
Attend = Callable[[Array, tuple[Context, ...]], Array]


def attend(
    queries: Float[Array, "B G T H D"], contexts: tuple[Context, ...]
) -> Float[Array, "B G T H*D"]:
    """Softmax attention over all contexts jointly; grouped-query where H is a multiple of K.

    Each context is one batched matrix product: the G * T queries of a prompt against its shared keys, or each
    completion's T queries against its own keys. The partial results are merged by their maxima and sums, as in online
    softmax (Milakov & Gimelshein 2018), so scores are neither concatenated nor transposed. Scores are float32 for any
    input dtype.

    A row with no visible key returns the mean of its values, not NaN. Such rows are padding, and nothing reads them.

    If a group has more than `BLOCK` queries, they are computed in blocks: [H, G * T, S] scores are never held at once,
    and a causal block skips the keys after it, which saves up to half of the work. The backward pass computes scores
    again, which costs less than keeping those of every layer.
    """
    b, g, t, h, d = queries.shape
    size = -(-t // -(-g * t // BLOCK))
    block = jax.checkpoint(_block, static_argnums=2)
    blocks = [block(queries[:, :, i : i + size], contexts, i) for i in range(0, t, size)]
    return jnp.concatenate(blocks, axis=2)


def _block(
    queries: Float[Array, "B G T H D"], contexts: tuple[Context, ...], start: int
) -> Float[Array, "B G T H*D"]:
    """Attention of a block of queries whose first is the `start`-th of its completion."""
    partials = [partial_attention(queries, context, start) for context in contexts]
    return merge_partials(partials).astype(queries.dtype)


class Partial(NamedTuple):
    """The contribution of one context to a softmax over several.

    Attributes:
        values: sum over keys of exp(score - max_score) * value.
        mass: sum over keys of exp(score - max_score).
        max_score: the largest score.
    """

    values: Float[Array, "B G T K R D"]
    mass: Float[Array, "B G T K R"]
    max_score: Float[Array, "B G T K R"]


@jax.named_scope("attention")
def partial_attention(
    queries: Float[Array, "B G T H D"], context: Context, start: int = 0
) -> Partial:
    """Attends to one context, without dividing by the softmax's sum."""
    b, g, t, h, d = queries.shape
    keys, values, visible = context.keys, context.values, context.visible
    if context.causal:
        keys, values = (x[..., : start + t, :] for x in (keys, values))
    kv, size = keys.shape[-3], keys.shape[-2]
    q = queries.reshape(b, g, t, kv, h // kv, d)
    # The rows of the matrix product for each key head: [B, K, R * G * T, D], or [B, G, K, R * T, D].
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
    # The maximum cancels in the merged result and so needs no gradient.
    max_score = jax.lax.stop_gradient(scores.max(axis=-1))
    weights = jnp.exp(scores - max_score[..., None])
    out = jnp.matmul(
        weights.reshape(*flat.shape[:-1], size).astype(q.dtype),
        values,
        preferred_element_type=jnp.float32,
    )
    back = [order.index(axis) for axis in range(6)]
    return Partial(
        values=out.reshape(rows.shape).transpose(back),
        mass=weights.sum(axis=-1).transpose(back[:5]),
        max_score=max_score.transpose(back[:5]),
    )


@jax.named_scope("attention")
def merge_partials(partials: Sequence[Partial]) -> Float[Array, "B G T E"]:
    """Returns attention under one softmax over the keys of all contexts."""
    max_score = functools.reduce(jnp.maximum, [partial.max_score for partial in partials])
    scales = [jnp.exp(partial.max_score - max_score) for partial in partials]
    pairs = list(zip(partials, scales, strict=True))
    total = sum(partial.mass * scale for partial, scale in pairs)
    out = sum(partial.values * (scale / total)[..., None] for partial, scale in pairs)
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
