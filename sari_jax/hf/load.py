"""Hugging Face weights into parameters: each tensor from its shard straight to where it will live."""

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

ROWS = 8192  # of a head, compared with the embedding at a time


def load_params(
    model_dir: Path | str,
    config: AudioLMConfig,
    *,
    dtype: str | Mapping[str, str] | None = None,
    mesh: Mesh | None = None,
    rules: Rules = TRAIN_RULES,
) -> Params:
    """The parameters of a Hugging Face directory.

    A process reads what its own devices hold and nothing else. Beside the parameters, memory holds one tensor.

    Args:
        dtype: of all parameters, or of each by its flat path; the source's own unless given, the widest where its
            layers differ. int8 is for the decoder's projections, whose scales then come beside them
            (`models.quantized`), and leaves others as they are.
        mesh: where they live, laid out by `rules` of `parallel.mesh`; one device by default.

    Raises:
        InputError: a shard missing or truncated; a tensor missing, unexpected, of another shape, or not finite.
    """
    shards, family = Shards(model_dir), read_family(model_dir)
    names = family.names(shards.tensors)
    all_rules = tensor_rules(config, names)
    _check(shards, family, names, all_rules, config)
    params, finite = {}, {}
    # The largest tensors first, while little else is in memory: what a tensor takes twice for a moment then never adds
    # to the whole.
    for rule in sorted(all_rules, key=lambda rule: -math.prod(shards.tensors[rule.names[0]].shape)):
        own = jnp.result_type(*{FLOATS[shards.tensors[name].dtype] for name in rule.names})
        path = "/".join(rule.path)
        wanted = dtype if isinstance(dtype, str | None) else dtype[path]
        if wanted in QUANTIZED and in_eight_bits(path):
            made = _in_int8(shards, rule, mesh, rules)
            params[rule.path], params[tuple(scale_of(path).split("/"))], finite[rule] = made
            continue
        wanted = own if wanted in QUANTIZED else wanted
        params[rule.path], finite[rule] = _parameter(
            shards, rule, jnp.dtype(wanted or own), mesh, rules
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


def _parameter(
    shards: Shards, rule: Rule, dtype: jnp.dtype, mesh: Mesh | None, rules: Rules
) -> tuple[Array, Bool[Array, "..."]]:
    """One parameter in its place, and whether it is finite (for each layer, if it has layers)."""
    one = _our_shape(shards, rule, rule.names[0])
    sharding = _sharding(
        mesh, "/".join(rule.path), (rule.layers, *one) if rule.layers else one, rules
    )
    if not rule.layers:
        array = _tensor(shards, rule, rule.name, dtype, sharding)
        return array, _finite(array)
    stacked, flags = _empty((rule.layers, *one), dtype, sharding), []
    for layer, name in enumerate(rule.names):
        stacked, flag = _put(
            stacked, _tensor(shards, rule, name, dtype, _of_layer(sharding)), layer
        )
        stacked.block_until_ready()  # else tensors that wait for their turn pile up
        flags.append(flag)
    return stacked, jnp.stack(flags)


def _in_int8(
    shards: Shards, rule: Rule, mesh: Mesh | None, rules: Rules
) -> tuple[Array, Array, Bool[Array, "L"]]:
    """A stacked kernel in eight bits, its scales, and whether each layer was finite."""
    inputs, outputs = _our_shape(shards, rule, rule.names[0])
    path, shape = "/".join(rule.path), (rule.layers, inputs, outputs)
    sharding = _sharding(mesh, path, shape, rules)
    stacked = _empty(shape, jnp.dtype(jnp.int8), sharding)
    shape = (rule.layers, 1, outputs)
    scales = _empty(shape, jnp.dtype(jnp.float32), _sharding(mesh, scale_of(path), shape, rules))
    flags = []
    for layer, name in enumerate(rule.names):
        kernel = _tensor(shards, rule, name, jnp.dtype(jnp.float32), _of_layer(sharding))
        flags.append(_finite(kernel))
        q, scale = _round(kernel)
        (stacked, _), (scales, _) = _put(stacked, q, layer), _put(scales, scale, layer)
        stacked.block_until_ready()
    return stacked, scales, jnp.stack(flags)


def _sharding(mesh: Mesh | None, path: str, shape: tuple[int, ...], rules: Rules) -> Sharding:
    if mesh is None:
        return SingleDeviceSharding(jax.devices()[0])
    return parameter_sharding(mesh, path, shape, rules)


def _of_layer(sharding: Sharding) -> Sharding:
    """Where one layer of a stack lies."""
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, P(*sharding.spec[1:]))
    return sharding


def _tensor(shards: Shards, rule: Rule, name: str, dtype: jnp.dtype, sharding: Sharding) -> Array:
    """One tensor of theirs as ours, each device's part read for itself."""

    def read(index: tuple[slice, ...]) -> np.ndarray:
        part = shards.read(name, rule.part(index))
        return np.ascontiguousarray(rule.to_ours(part), dtype)

    return jax.make_array_from_callback(_our_shape(shards, rule, name), sharding, read)


_round = jax.jit(to_int8)


def _empty(shape: tuple[int, ...], dtype: jnp.dtype, sharding: Sharding) -> Array:
    return jax.jit(jnp.zeros, static_argnums=(0, 1), out_shardings=sharding)(shape, dtype)


@functools.partial(jax.jit, donate_argnums=0)
def _put(
    stacked: Array, layer: Array, place: Int[Array, ""] | int
) -> tuple[Array, Bool[Array, ""]]:
    return jax.lax.dynamic_update_index_in_dim(stacked, layer, place, 0), jnp.isfinite(layer).all()


@jax.jit
def _finite(array: Array) -> Bool[Array, ""]:
    return jnp.isfinite(array).all()


def _our_shape(shards: Shards, rule: Rule, name: str) -> tuple[int, ...]:
    """What a tensor's shape becomes here; without reading it."""
    shape = shards.tensors[name].shape
    return tuple(shape[axis] for axis in rule.axes) if len(shape) == len(rule.axes) > 1 else shape


def _check(
    shards: Shards, family: Family, names: Names, all_rules: list[Rule], config: AudioLMConfig
) -> None:
    """Names both ways, shapes and dtypes, before anything is read."""
    wanted = {name for rule in all_rules for name in rule.names}
    found = {name for name in shards.tensors if not family.carries(name)}
    if config.decoder.tied:
        found -= {names.unembedding}
    abstract = traverse_util.flatten_dict(abstract_params(config))
    misshaped, strange = [], []
    for rule in all_rules:
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
                strange.append(f"{name} is {stored.dtype}, not one of {', '.join(FLOATS)}")
    told = [
        f"{len(those)} {what} ({_first(those)})"
        for what, those in (
            ("missing", sorted(wanted - found)),
            ("unexpected", sorted(found - wanted)),
            ("mis-shaped", sorted(misshaped)),
            ("of another kind", sorted(strange)),
        )
        if those
    ]
    if told:
        raise InputError(f"{shards.model_dir}: tensors do not fit config.json: {'; '.join(told)}")
    if config.decoder.tied and names.unembedding in shards.tensors:
        _check_tied(shards, names.embedding, names.unembedding)


def _check_tied(shards: Shards, embedding: str, head: str) -> None:
    """A tied head may be stored a second time, if it is the same."""
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
