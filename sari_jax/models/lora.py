"""Low-rank adapters (LoRA, Hu et al. 2021): a projection's W becomes W + scale * A B, of which A and B alone learn.

They are parameters like others, beside the kernel that they adapt ("decoder/layers/q_proj/lora_a"), and stacked as it
is. The same parameters without them, under a config without them, are the model as it was before.
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
    """Whether the parameter of this flat path is a part of an adapter."""
    return fnmatch.fnmatch(path, LEAVES)


def adapt(model: nnx.Module, adapter: Adapter, key: Array) -> None:
    """Gives the projections that are meant their adapters, in place; they change nothing yet, as B is zero.

    Raises:
        InputError: a pattern that matches no projection.
    """
    found = {
        "/".join(map(str, path)): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, Linear)
    }
    for pattern in adapter.targets:
        if not fnmatch.filter(found, pattern):
            raise InputError(
                f"config: model.adapter.targets pattern {pattern!r} matches no projection; there are {', '.join(found)}"
            )
    for path, module in found.items():
        if not any(fnmatch.fnmatch(path, pattern) for pattern in adapter.targets):
            continue
        *layers, inputs, outputs = module.kernel.shape
        module.scale, module.dropout = adapter.scale, adapter.dropout
        module.lora_a = nnx.Param(_first_a(key, path, (*layers, inputs, adapter.rank)))
        module.lora_b = nnx.Param(jnp.zeros((*layers, adapter.rank, outputs)))
        if adapter.dropout:
            module.noise = nnx.Variable(_own_keys(key, path, tuple(layers)))


def init_adapter(
    shapes: dict[str, Any],
    seed: int,
    *,
    dtype: str = "float32",
    shardings: dict[str, Any] | None = None,
) -> dict[str, Array]:
    """The adapters among these shapes (flat by path), as peft starts them; the same over any devices.

    A is uniform within 1 / sqrt(inputs), Kaiming's with a = sqrt(5); B is zero.

    Args:
        shardings: where each lives; one device unless given.
    """
    wanted = {path: leaf.shape for path, leaf in shapes.items() if is_adapter(path)}

    def draw() -> dict[str, Array]:
        key = jax.random.key(seed)
        return {
            path: (
                _first_a(key, path.rpartition("/")[0], shape)
                if path.endswith("lora_a")
                else jnp.zeros(shape)
            ).astype(dtype)
            for path, shape in wanted.items()
        }

    placed = None if shardings is None else {path: shardings[path] for path in wanted}
    return jax.jit(draw, out_shardings=placed)()


def with_noise(config: AudioLMConfig, params: dict[str, Any], key: Array) -> dict[str, Any]:
    """Parameters, and beside each adapter the keys that its layers' dropout draws from; none where there is none."""
    if not (config.adapter and config.adapter.dropout):
        return params
    flat = traverse_util.flatten_dict(params, sep="/")
    for path, a in list(flat.items()):
        place, _, leaf = path.rpartition("/")
        if leaf == "lora_a":
            flat[f"{place}/noise"] = _own_keys(key, place, a.shape[:-2])
    return traverse_util.unflatten_dict(flat, sep="/")


def with_dropout(config: AudioLMConfig, dropout: float) -> AudioLMConfig:
    """The config for the pass that is differentiated."""
    if config.adapter is None:
        return config
    return dataclasses.replace(config, adapter=dataclasses.replace(config.adapter, dropout=dropout))


def without_adapter(config: AudioLMConfig) -> AudioLMConfig:
    return dataclasses.replace(config, adapter=None)


def merged(
    kernel: Float[np.ndarray, "I O"],
    a: Float[np.ndarray, "I R"],
    b: Float[np.ndarray, "R O"],
    scale: float,
) -> Float[np.ndarray, "I O"]:
    """The kernel that does alone what it did with its adapter."""
    return kernel + np.float32(scale) * (a @ b)


def _first_a(key: Array, path: str, shape: tuple[int, ...]) -> Float[Array, "... I R"]:
    bound = shape[-2] ** -0.5
    return jax.random.uniform(_of_path(key, path), shape, minval=-bound, maxval=bound)


def _own_keys(key: Array, path: str, layers: tuple[int, ...]) -> Array:
    """One key for each layer."""
    return jax.random.split(_of_path(key, path), layers) if layers else _of_path(key, path)


def _of_path(key: Array, path: str) -> Array:
    """By its name, so that other projections' adapters change nothing here."""
    return jax.random.fold_in(key, zlib.crc32(path.encode()))
