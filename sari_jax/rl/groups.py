"""Dynamic sampling (DAPO, Yu et al. 2025, section 3.2): groups that say nothing give way to groups that do.

A step draws batch after batch, in the order of the data, until in every one of its groups the objective's `spread`
differs, or a limit is reached. What a batch is then made of is decided by rewards alone, which all hosts know, so that
it is the same on any number of them; groups go from device to device, and nothing is drawn, read or decoded twice.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from sari_jax.models.audio_lm import Prompts
from sari_jax.parallel.mesh import constrain


def refill(flat: Bool[np.ndarray, "B"], fresh_flat: Bool[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
    """Which groups to go on with: places among the kept ones and, from B on, among the fresh ones.

    A group with spread stays where it is. The others' places are taken by fresh ones with spread, in order, as far as
    they go; a group that is left without keeps its place.

        kept [spread, flat, flat], fresh [flat, spread, flat] -> [0, 4, 2]
    """
    places = np.arange(len(flat), dtype=np.int32)
    free, usable = np.flatnonzero(flat), np.flatnonzero(~fresh_flat)
    count = min(len(free), len(usable))
    places[free[:count]] = len(flat) + usable[:count]
    return places


@functools.partial(jax.jit, static_argnames="pad_id")
def take(kept: Any, fresh: Any, places: Int[Array, "B"], pad_id: int) -> Any:
    """These rows of two trees of rows [B, ...], of which one may hold smaller prompts than the other.

    Shapes come out of the buckets that both came in: the same few programs as before.
    """
    kept, fresh = (_alike(tree, other, pad_id) for tree, other in ((kept, fresh), (fresh, kept)))
    return jax.tree.map(
        lambda a, b: constrain(jnp.concatenate([a, b])[places], "batch"), kept, fresh
    )


def _alike(tree: Any, other: Any, pad_id: int) -> Any:
    """Every array as large as the other's, prompts by what their places mean."""

    def grown(x: Array | Prompts, y: Array | Prompts) -> Array | Prompts:
        if isinstance(x, Prompts):
            return widened(x, y, pad_id)
        return _pad(x, y.shape, 0)

    return jax.tree.map(grown, tree, other, is_leaf=lambda x: isinstance(x, Prompts))


def widened(prompts: Prompts, other: Prompts, pad_id: int) -> Prompts:
    """The same prompts with room for the other's: as `Batch.sized` does on the host."""
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
