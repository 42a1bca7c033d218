"""Low-rank adapters (LoRA, Hu et al. 2021): a projection's W becomes W + scale * A B, and only A and B are trained.

A and B are parameters beside the kernel that they adapt ("decoder/layers/q_proj/lora_a"), stacked over layers as the
kernel is. The other parameters, under a config without an adapter, are the base model.
"""

import dataclasses
import fnmatch
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jaxtyping import Array, Float

from sari_jax.errors import InputError
from sari_jax.models.config import Adapter, AudioLMConfig
from sari_jax.models.layers import Linear

LEAVES = "*/lora_[ab]"


def is_adapter(path: str) -> bool:
    """Whether the parameter at this flat path belongs to an adapter."""
    return fnmatch.fnmatch(path, LEAVES)


def add_adapters(model: nnx.Module, adapter: Adapter, key: Array) -> None:
    """Adds adapters to the projections that `adapter.targets` matches, in place.

    B is zero, so the new adapters do not change the model's output.

    Raises:
        InputError: a pattern matches no projection.
    """
    projections = {
        "/".join(map(str, path)): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, Linear)
    }
    for pattern in adapter.targets:
        if not fnmatch.filter(projections, pattern):
            raise InputError(
                f"config: model.adapter.targets pattern {pattern!r} matches no projection; there are"
                f" {', '.join(projections)}"
            )
    for path, module in projections.items():
        if not any(fnmatch.fnmatch(path, pattern) for pattern in adapter.targets):
            continue
        *layers, inputs, outputs = module.kernel.shape
        module.scale = adapter.scale
        module.dropout = adapter.dropout
        module.lora_a = nnx.Param(_initial_a(key, path, (*layers, inputs, adapter.rank)))
        module.lora_b = nnx.Param(jnp.zeros((*layers, adapter.rank, outputs)))
        if adapter.dropout:
            module.noise = nnx.Variable(_layer_keys(key, path, tuple(layers)))


def init_adapter(
    shapes: dict[str, Any],
    seed: int,
    *,
    dtype: str = "float32",
    shardings: dict[str, Any] | None = None,
) -> dict[str, Array]:
    """Initialises the adapters among these shapes as peft does. The values do not depend on the devices.

    A is uniform in [-1 / sqrt(inputs), 1 / sqrt(inputs)], which is Kaiming's with a = sqrt(5). B is zero.

    Args:
        shapes: the shapes of all parameters, by flat path.
        shardings: the sharding of each parameter, by flat path; default one device.
    """
    adapters = {path: leaf.shape for path, leaf in shapes.items() if is_adapter(path)}

    def draw() -> dict[str, Array]:
        key = jax.random.key(seed)
        return {
            path: (
                _initial_a(key, path.rpartition("/")[0], shape)
                if path.endswith("lora_a")
                else jnp.zeros(shape)
            ).astype(dtype)
            for path, shape in adapters.items()
        }

    placed = None if shardings is None else {path: shardings[path] for path in adapters}
    return jax.jit(draw, out_shardings=placed)()


def with_noise(config: AudioLMConfig, params: dict[str, Any], key: Array) -> dict[str, Any]:
    """The parameters and, beside each adapter, a key for the dropout of each layer. No keys without dropout."""
    if not (config.adapter and config.adapter.dropout):
        return params
    flat = traverse_util.flatten_dict(params, sep="/")
    for path, a in list(flat.items()):
        module, _, leaf = path.rpartition("/")
        if leaf == "lora_a":
            flat[f"{module}/noise"] = _layer_keys(key, module, a.shape[:-2])
    return traverse_util.unflatten_dict(flat, sep="/")


def with_dropout(config: AudioLMConfig, dropout: float) -> AudioLMConfig:
    """The config with this dropout in its adapter, for the pass that is differentiated."""
    if config.adapter is None:
        return config
    return dataclasses.replace(config, adapter=dataclasses.replace(config.adapter, dropout=dropout))


def without_adapter(config: AudioLMConfig) -> AudioLMConfig:
    """The config of the base model."""
    return dataclasses.replace(config, adapter=None)


def merge_adapter(
    kernel: Float[np.ndarray, "I O"],
    a: Float[np.ndarray, "I R"],
    b: Float[np.ndarray, "R O"],
    scale: float,
) -> Float[np.ndarray, "I O"]:
    """The kernel with its adapter added to it: W + scale * A B."""
    return kernel + np.float32(scale) * (a @ b)


def _initial_a(key: Array, path: str, shape: tuple[int, ...]) -> Float[Array, "... I R"]:
    bound = shape[-2] ** -0.5
    return jax.random.uniform(_path_key(key, path), shape, minval=-bound, maxval=bound)


def _layer_keys(key: Array, path: str, layers: tuple[int, ...]) -> Array:
    """One key for each layer."""
    return jax.random.split(_path_key(key, path), layers) if layers else _path_key(key, path)


def _path_key(key: Array, path: str) -> Array:
    """Folds the path into the key, so that one adapter's values do not depend on which other adapters exist."""
    return jax.random.fold_in(key, zlib.crc32(path.encode()))
