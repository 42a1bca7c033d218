"""Dynamic sampling: groups without spread are replaced by groups of further batches.

A step draws batch after batch, in the order of the data, until the objective's `spread` reward differs within every
group, or a limit is reached. The rewards alone decide which groups make up the batch. All hosts know them, so the batch
is the same on any number of hosts. Groups move from device to device; nothing is drawn, read or decoded twice.

References:
    Yu et al. 2025, "DAPO", section 3.2.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from sari_jax.models.audio_lm import Prompts
from sari_jax.parallel.mesh import constrain


def refill(
    zero_spread: Bool[np.ndarray, "B"], fresh_zero_spread: Bool[np.ndarray, "B"]
) -> Int[np.ndarray, "B"]:
    """Chooses B groups to go on with, among B kept groups and B fresh ones.

    A group with spread stays where it is. Fresh groups with spread take the places of the others, in order, as far as
    they go. A group that gets no replacement keeps its place.

    >>> spread, flat = False, True
    >>> refill(np.array([spread, flat, flat]), np.array([flat, spread, flat])).tolist()
    [0, 4, 2]

    Args:
        zero_spread: true for a kept group without spread.
        fresh_zero_spread: true for a fresh group without spread.

    Returns:
        The place of each group to go on with: below B among the kept groups, from B on among the fresh ones.
    """
    places = np.arange(len(zero_spread), dtype=np.int32)
    free = np.flatnonzero(zero_spread)
    usable = np.flatnonzero(~fresh_zero_spread)
    count = min(len(free), len(usable))
    places[free[:count]] = len(zero_spread) + usable[:count]
    return places


@functools.partial(jax.jit, static_argnames="pad_id")
def take(kept: Any, fresh: Any, places: Int[Array, "B"], pad_id: int) -> Any:
    """Takes rows from two batches, of which one may have smaller shapes than the other.

        [*kept, *fresh][places]

    Both batches have the shapes of buckets, and so has the result: no further program is compiled for its shapes.

    Args:
        kept, fresh: trees of the same structure, with arrays [B, ...] and `Prompts` as leaves.
        places: the result of `refill`.
        pad_id: the token that fills up prompts.

    Returns:
        The rows as a tree of the same structure, sharded over the batch.
    """
    kept, fresh = (_alike(tree, other, pad_id) for tree, other in ((kept, fresh), (fresh, kept)))
    return jax.tree.map(
        lambda a, b: constrain(jnp.concatenate([a, b])[places], "batch"), kept, fresh
    )


def _alike(tree: Any, other: Any, pad_id: int) -> Any:
    """Pads every array of a tree to the size of the other's; prompts are padded by `widened`."""

    def grown(x: Array | Prompts, y: Array | Prompts) -> Array | Prompts:
        if isinstance(x, Prompts):
            return widened(x, y, pad_id)
        return _pad(x, y.shape, 0)

    return jax.tree.map(grown, tree, other, is_leaf=lambda x: isinstance(x, Prompts))


def widened(prompts: Prompts, other: Prompts, pad_id: int) -> Prompts:
    """Pads prompts to the sizes of other prompts on the device, as `Batch.sized` does on the host."""
    return Prompts(
        _pad(prompts.tokens, other.tokens.shape, pad_id),
        prompts.lengths,
        _pad(prompts.audio_index, other.audio_index.shape, -1),
        _pad(prompts.waveforms, other.waveforms.shape, 0),
        _pad(prompts.samples, other.samples.shape, 0),
    )


def _pad(x: Array, shape: tuple[int, ...], value: int) -> Array:
    room = [(0, max(0, size - own)) for own, size in zip(x.shape, shape, strict=True)]
    return jnp.pad(x, room, constant_values=value) if any(after for _, after in room) else x
