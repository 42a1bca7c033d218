"""Frozen projections in eight bits: W is kept as int8 Q and one scale for each output, so that x W = (x Q) * scale.

For adapters on few chips (Dettmers et al. 2023, QLoRA, with int8 in the place of 4 bits). Four bits want a scale for
each small block of inputs, and so a sum over blocks in every product; that is not here.
"""

import fnmatch

import jax.numpy as jnp
import qwix
from flax import nnx
from jaxtyping import Array, Float, Int8

from sari_jax.models.layers import Linear

NAMES = ("int8",)
KERNELS, SCALE = "decoder/layers/*_proj/kernel", "kernel_scale"


def is_quantized(path: str) -> bool:
    """Whether the parameter of this flat path is kept in eight bits, where any is."""
    return fnmatch.fnmatch(path, KERNELS)


def scale_of(path: str) -> str:
    """Where the scales of the kernel at this flat path stand."""
    return f"{path.rpartition('/')[0]}/{SCALE}"


def quantize(model: nnx.Module) -> None:
    """Gives the projections that are meant their scales, in place; their kernels are then read as int8."""
    for path, module in nnx.iter_modules(model):
        if isinstance(module, Linear) and is_quantized("/".join(map(str, (*path, "kernel")))):
            *layers, _, outputs = module.kernel.shape
            module.kernel_scale = nnx.Param(jnp.ones((*layers, 1, outputs)))


def quantized(
    kernel: Float[Array, "*L I O"],
) -> tuple[Int8[Array, "*L I O"], Float[Array, "*L 1 O"]]:
    """(Q, scale) with scale = max |W| / 127.5 over the inputs of each output; symmetric, as qwix rounds."""
    whole = range(kernel.ndim - 2)
    found = qwix.quantize(kernel, jnp.int8, channelwise_axes=(*whole, kernel.ndim - 1))
    return found.qvalue, found.scale
