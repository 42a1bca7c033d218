"""Loads Hugging Face weights as parameters. Each tensor is read from its shard straight to its devices."""

import functools
import math
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding, Sharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Int

from sari_jax.errors import InputError
from sari_jax.hf.config import read_family
from sari_jax.hf.family import Family
from sari_jax.hf.names import Names, Rule, tensor_rules
from sari_jax.hf.shards import FLOATS, Shards
from sari_jax.models.audio_lm import Params, abstract_params
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.quantized import DTYPES as QUANTIZED
from sari_jax.models.quantized import in_eight_bits, scale_of, to_int8
from sari_jax.parallel.mesh import TRAIN_RULES, Rules, parameter_sharding

# Rows of a tied head that are compared with the embedding at a time.
ROWS = 8192


def load_params(
    model_dir: Path | str,
    config: AudioLMConfig,
    *,
    dtype: str | Mapping[str, str] | None = None,
    mesh: Mesh | None = None,
    rules: Rules = TRAIN_RULES,
) -> Params:
    """Loads the parameters of a Hugging Face directory.

    A process reads only what its own devices hold. Beside the parameters, memory holds one tensor.

    Args:
        dtype: the dtype of all parameters, or of each by its flat path; default the source's, and the widest if its
            layers differ. int8 applies to the decoder's projections, whose scales become parameters beside them
            (`models.quantized`). With int8, other parameters keep the source's dtype.
        mesh: the parameters' mesh, over which `rules` shard them; default one device.

    Raises:
        InputError: a shard is missing or truncated; a tensor is missing, unexpected, of another shape, or not finite.
    """
    shards = Shards(model_dir)
    family = read_family(model_dir)
    names = family.names(shards.tensors)
    all_rules = tensor_rules(config, names)
    _check(shards, family, names, all_rules, config)
    params, finite = {}, {}
    # The largest tensors are loaded first, while memory is nearly empty: a tensor briefly takes its size twice.
    for rule in sorted(all_rules, key=lambda rule: -math.prod(shards.tensors[rule.names[0]].shape)):
        source = jnp.result_type(*{FLOATS[shards.tensors[name].dtype] for name in rule.names})
        path = "/".join(rule.path)
        wanted = dtype if isinstance(dtype, str | None) else dtype[path]
        if wanted in QUANTIZED and in_eight_bits(path):
            q, scales, flags = _load_in_int8(shards, rule, mesh, rules)
            params[rule.path] = q
            params[tuple(scale_of(path).split("/"))] = scales
            finite[rule] = flags
            continue
        wanted = source if wanted in QUANTIZED else wanted
        params[rule.path], finite[rule] = _load_parameter(
            shards, rule, jnp.dtype(wanted or source), mesh, rules
        )
    bad = [
        name
        for rule, flags in finite.items()
        for name, flag in zip(rule.names, np.atleast_1d(flags), strict=True)
        if not flag
    ]
    if bad:
        raise InputError(
            f"{model_dir}/{shards.tensors[bad[0]].file}: {bad[0]} holds NaN or infinity"
            f" ({_count(bad)}); fetch it again, or keep it in a wider dtype"
        )
    return traverse_util.unflatten_dict(params)


def _load_parameter(
    shards: Shards, rule: Rule, dtype: jnp.dtype, mesh: Mesh | None, rules: Rules
) -> tuple[Array, Bool[Array, "..."]]:
    """One parameter on its devices, and whether it is finite: for each layer, if it has layers."""
    shape = _our_shape(shards, rule, rule.names[0])
    if rule.layers:
        shape = (rule.layers, *shape)
    sharding = _sharding(mesh, "/".join(rule.path), shape, rules)
    if not rule.layers:
        array = _load_tensor(shards, rule, rule.name, dtype, sharding)
        return array, _is_finite(array)
    stacked = _zeros(shape, dtype, sharding)
    flags = []
    for layer, name in enumerate(rule.names):
        array = _load_tensor(shards, rule, name, dtype, _layer_sharding(sharding))
        stacked, flag = _write_layer(stacked, array, layer)
        # Without waiting, tensors would pile up in memory.
        stacked.block_until_ready()
        flags.append(flag)
    return stacked, jnp.stack(flags)


def _load_in_int8(
    shards: Shards, rule: Rule, mesh: Mesh | None, rules: Rules
) -> tuple[Array, Array, Bool[Array, "L"]]:
    """A stacked kernel in eight bits, its scales, and whether each layer of the source is finite."""
    inputs, outputs = _our_shape(shards, rule, rule.names[0])
    path = "/".join(rule.path)
    shape = (rule.layers, inputs, outputs)
    scales_shape = (rule.layers, 1, outputs)
    sharding = _sharding(mesh, path, shape, rules)
    stacked = _zeros(shape, jnp.dtype(jnp.int8), sharding)
    scales = _zeros(
        scales_shape,
        jnp.dtype(jnp.float32),
        _sharding(mesh, scale_of(path), scales_shape, rules),
    )
    flags = []
    for layer, name in enumerate(rule.names):
        kernel = _load_tensor(shards, rule, name, jnp.dtype("float32"), _layer_sharding(sharding))
        flags.append(_is_finite(kernel))
        q, scale = _round(kernel)
        stacked, _ = _write_layer(stacked, q, layer)
        scales, _ = _write_layer(scales, scale, layer)
        stacked.block_until_ready()
    return stacked, scales, jnp.stack(flags)


def _sharding(mesh: Mesh | None, path: str, shape: tuple[int, ...], rules: Rules) -> Sharding:
    if mesh is None:
        return SingleDeviceSharding(jax.devices()[0])
    return parameter_sharding(mesh, path, shape, rules)


def _layer_sharding(sharding: Sharding) -> Sharding:
    """The sharding of one layer of a stacked parameter."""
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, P(*sharding.spec[1:]))
    return sharding


def _load_tensor(
    shards: Shards, rule: Rule, name: str, dtype: jnp.dtype, sharding: Sharding
) -> Array:
    """One tensor of the checkpoint with our axes. Each device's part is read separately."""

    def read(index: tuple[slice, ...]) -> np.ndarray:
        part = shards.read(name, rule.part(index))
        return np.ascontiguousarray(rule.to_ours(part), dtype)

    return jax.make_array_from_callback(_our_shape(shards, rule, name), sharding, read)


_round = jax.jit(to_int8)


def _zeros(shape: tuple[int, ...], dtype: jnp.dtype, sharding: Sharding) -> Array:
    return jax.jit(jnp.zeros, static_argnums=(0, 1), out_shardings=sharding)(shape, dtype)


@functools.partial(jax.jit, donate_argnums=0)
def _write_layer(
    stacked: Array, layer: Array, index: Int[Array, ""] | int
) -> tuple[Array, Bool[Array, ""]]:
    """Writes a layer of a stacked parameter in place; returns the parameter, and whether the layer is finite."""
    return jax.lax.dynamic_update_index_in_dim(stacked, layer, index, 0), jnp.isfinite(layer).all()


@jax.jit
def _is_finite(array: Array) -> Bool[Array, ""]:
    return jnp.isfinite(array).all()


def _our_shape(shards: Shards, rule: Rule, name: str) -> tuple[int, ...]:
    """The shape of a tensor with our axes, from the shard's header."""
    shape = shards.tensors[name].shape
    return tuple(shape[axis] for axis in rule.axes) if len(shape) == len(rule.axes) > 1 else shape


def _check(
    shards: Shards, family: Family, names: Names, rules: list[Rule], config: AudioLMConfig
) -> None:
    """Checks names, shapes and dtypes of all tensors before any is read.

    Raises:
        InputError: tensors are missing, unexpected, of another shape or of another dtype.
    """
    wanted = {name for rule in rules for name in rule.names}
    found = {name for name in shards.tensors if not family.carries(name)}
    if config.decoder.tied:
        found -= {names.unembedding}
    misshaped, mistyped = _wrong_tensors(shards, rules, found, config)
    kinds = {
        "missing": wanted - found,
        "unexpected": found - wanted,
        "mis-shaped": misshaped,
        "of another kind": mistyped,
    }
    reasons = [
        f"{len(tensors)} {kind} ({_first(sorted(tensors))})"
        for kind, tensors in kinds.items()
        if tensors
    ]
    if reasons:
        raise InputError(
            f"{shards.model_dir}: tensors do not fit config.json: {'; '.join(reasons)}"
        )
    if config.decoder.tied and names.unembedding in shards.tensors:
        _check_tied(shards, names.embedding, names.unembedding)


def _wrong_tensors(
    shards: Shards, rules: list[Rule], found: set[str], config: AudioLMConfig
) -> tuple[list[str], list[str]]:
    """Descriptions of the tensors whose shape, and of those whose dtype, is not what config.json implies."""
    abstract = traverse_util.flatten_dict(abstract_params(config))
    misshaped, mistyped = [], []
    for rule in rules:
        expected = abstract[rule.path].shape[1:] if rule.layers else abstract[rule.path].shape
        for name in set(rule.names) & found:
            stored = shards.tensors[name]
            if _our_shape(shards, rule, name) != expected:
                theirs = expected
                if len(rule.axes) == len(expected) > 1:
                    theirs = tuple(expected[axis] for axis in np.argsort(rule.axes))
                misshaped.append(
                    f"{name} has shape {stored.shape} where config.json implies {theirs}"
                )
            if stored.dtype not in FLOATS:
                mistyped.append(f"{name} is {stored.dtype}, not one of {', '.join(FLOATS)}")
    return misshaped, mistyped


def _check_tied(shards: Shards, embedding: str, head: str) -> None:
    """Checks that a tied head that is stored too equals the embedding.

    Raises:
        InputError: it differs.
    """
    shape = shards.tensors[embedding].shape
    same = shape == shards.tensors[head].shape
    for start in range(0, shape[0] if same else 0, ROWS):
        part = (slice(start, start + ROWS), slice(None))
        same = same and np.array_equal(shards.read(embedding, part), shards.read(head, part))
    if not same:
        raise InputError(
            f"{shards.model_dir}: config.json ties the head to the embedding, but {head} differs from it;"
            " set tie_word_embeddings to false"
        )


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _count(names: list[str]) -> str:
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} in all"
