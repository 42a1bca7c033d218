"""Frozen projections in eight bits: W is stored as int8 Q and one scale for each output: x W = (x Q) * scale.

This lets adapters train on few chips, as QLoRA does (Dettmers et al. 2023) with 4 bits. Four bits would need a scale
for each small block of inputs, and so a sum over blocks in every product; that is not implemented.

The rounding is not qwix's, because qwix scales the largest weight to 127.5. Whether a cast turns this into 127 or wraps
it then depends on the back end. Importing qwix would also import all of its other modules.
"""

import fnmatch

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int8

from sari_jax.models.layers import Linear

DTYPES = ("int8",)
PROJECTIONS = "decoder/layers/*_proj/kernel"
SCALE = "kernel_scale"
LARGEST = 127


def in_eight_bits(path: str) -> bool:
    """Whether the parameter at this flat path is stored in eight bits in a quantized model."""
    return fnmatch.fnmatch(path, PROJECTIONS)


def scale_of(path: str) -> str:
    """The flat path of the scales of the kernel at this flat path."""
    return f"{path.rpartition('/')[0]}/{SCALE}"


def add_scales(model: nnx.Module) -> None:
    """Adds scales to the quantized projections, in place. Their kernels are then read as int8."""
    for path, module in nnx.iter_modules(model):
        if isinstance(module, Linear) and in_eight_bits("/".join(map(str, (*path, "kernel")))):
            *layers, _, outputs = module.kernel.shape
            module.kernel_scale = nnx.Param(jnp.ones((*layers, 1, outputs)))


def to_int8(kernel: Float[Array, "*L I O"]) -> tuple[Int8[Array, "*L I O"], Float[Array, "*L 1 O"]]:
    """Returns (Q, scale): scale = max |W| / 127 over the inputs of each output, Q = round(W / scale), half to even."""
    largest = jnp.abs(kernel).max(axis=-2, keepdims=True)
    scale = jnp.where(largest > 0, largest / LARGEST, 1.0)
    # The largest weight divided by its scale may be slightly above 127.
    q = jnp.clip(jnp.round(kernel / scale), -LARGEST, LARGEST)
    return q.astype(jnp.int8), scale
