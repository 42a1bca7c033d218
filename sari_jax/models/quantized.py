"""Frozen projections in eight bits: W is kept as int8 Q and one scale for each output, so that x W = (x Q) * scale.

For adapters on few chips (as QLoRA, Dettmers et al. 2023, with int8 in the place of 4 bits). Four bits want a scale for
each small block of inputs, and so a sum over blocks in every product; that is not here.

Rounding is three lines of our own and not qwix's: its scale takes the largest weight to 127.5, so that whether this
becomes 127 or wraps is left to how a back end casts, and importing it brings every other part of it along.
"""

import fnmatch

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int8

from sari_jax.models.layers import Linear

DTYPES = ("int8",)
PROJECTIONS, SCALE = "decoder/layers/*_proj/kernel", "kernel_scale"
LARGEST = 127


def in_eight_bits(path: str) -> bool:
    """Whether the parameter of this flat path is kept in eight bits, where any is."""
    return fnmatch.fnmatch(path, PROJECTIONS)


def scale_of(path: str) -> str:
    """Where the scales of the kernel at this flat path stand."""
    return f"{path.rpartition('/')[0]}/{SCALE}"


def add_scales(model: nnx.Module) -> None:
    """Gives the projections that are meant their scales, in place; their kernels are then read as int8."""
    for path, module in nnx.iter_modules(model):
        if isinstance(module, Linear) and in_eight_bits("/".join(map(str, (*path, "kernel")))):
            *layers, _, outputs = module.kernel.shape
            module.kernel_scale = nnx.Param(jnp.ones((*layers, 1, outputs)))


def to_int8(kernel: Float[Array, "*L I O"]) -> tuple[Int8[Array, "*L I O"], Float[Array, "*L 1 O"]]:
    """(Q, scale): scale = max |W| / 127 over the inputs of each output, Q = round(W / scale), to even at halves."""
    largest = jnp.abs(kernel).max(axis=-2, keepdims=True)
    scale = jnp.where(largest > 0, largest / LARGEST, 1.0)
    # The largest weight over its own scale may be a hair above 127.
    q = jnp.clip(jnp.round(kernel / scale), -LARGEST, LARGEST)
    return q.astype(jnp.int8), scale
