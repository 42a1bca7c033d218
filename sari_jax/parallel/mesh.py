"""Sharding: the mesh, the logical axes of arrays, and the rules from logical axes to mesh axes.

We define the logical axes of arrays ("batch", "embed", "heads", ...) and rules from logical axes to mesh axes. A rule
says over which mesh axes a logical axis is split; None means that every device holds all of it. Change the rules, and
the sharding of every array changes with them:

    mesh axis   splits
    data        the batch; parameters are copied. It may cross between slices or GPU nodes.
    fsdp        the batch, and the "embed" axis of parameters
    tensor      "heads", "ffn" and "vocabulary"

    "decoder/layers/q_proj/kernel"  ("layers", "embed", "heads")  ->  P(None, "fsdp", "tensor")

Decoding has its own rules, DECODE_RULES, which split parameters over `tensor` alone. It also has its own mesh,
`decoding_mesh`, with the same devices and more of them on `tensor`. So a decoded token gathers no parameters.
"""

import fnmatch
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from sari_jax.errors import InputError

AXES = ("data", "fsdp", "tensor")
Rules = Mapping[str, str | tuple[str, ...] | None]
TRAIN_RULES: Rules = {
    "batch": ("data", "fsdp"),
    "layers": None,
    "embed": "fsdp",
    "heads": "tensor",
    "ffn": "tensor",
    "vocabulary": "tensor",
    # An adapter's only long axis is split over both, as far as they divide it: its gradients and optimizer moments
    # take memory too.
    "adapter_embed": ("fsdp", "tensor"),
    "adapter_heads": ("tensor", "fsdp"),
    "adapter_ffn": ("tensor", "fsdp"),
}
DECODE_RULES: Rules = {
    **TRAIN_RULES,
    "embed": None,
    "adapter_embed": None,
    "adapter_heads": "tensor",
    "adapter_ffn": "tensor",
}


def _adapter_axis(axis: str | None) -> str | None:
    """The logical axis of an adapter's factor beside this axis of its kernel."""
    return axis and f"adapter_{axis}"


# The first pattern that matches a parameter's path names its logical axes. Parameters that match none (norms, biases,
# convolutions, positions) are small and replicated.
KERNELS: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    ("projector", (None, "embed")),
    ("*/layers/[qkv]_proj", ("layers", "embed", "heads")),
    ("*/layers/o_proj", ("layers", "heads", "embed")),
    ("*/layers/gate_proj", ("layers", "embed", "ffn")),
    ("*/layers/up_proj", ("layers", "embed", "ffn")),
    ("*/layers/down_proj", ("layers", "ffn", "embed")),
)
# An adapter's A is split over its kernel's inputs, and B over its outputs. The rank is never split.
PARAMETERS: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    ("decoder/embed/embedding", ("vocabulary", "embed")),
    ("decoder/head/embedding", ("vocabulary", "embed")),
    *((f"{path}/kernel", axes) for path, axes in KERNELS),
    *((f"{path}/kernel_scale", (*axes[:-2], None, axes[-1])) for path, axes in KERNELS),
    *((f"{path}/lora_a", (*axes[:-2], _adapter_axis(axes[-2]), None)) for path, axes in KERNELS),
    *((f"{path}/lora_b", (*axes[:-2], None, _adapter_axis(axes[-1]))) for path, axes in KERNELS),
)


def make_mesh(
    data: int = 1, fsdp: int = -1, tensor: int = 1, *, devices: Sequence[Any] | None = None
) -> Mesh:
    """A mesh over all devices. One size may be -1: it becomes what the other two leave.

    Args:
        devices: default all of them, on all hosts.

    Raises:
        InputError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    sizes = [data, fsdp, tensor]
    known = math.prod(size for size in sizes if size > 0)
    if sizes.count(-1) == 1 and count % known == 0:
        sizes[sizes.index(-1)] = count // known
        known = count
    if known != count or min(sizes) < 1:
        raise InputError(
            f"config: mesh data={data}, fsdp={fsdp}, tensor={tensor} does not cover {count} devices;"
            f" their product must be {count}"
        )
    types = (AxisType.Auto,) * len(AXES)
    if len({getattr(device, "slice_index", 0) for device in devices}) > 1:
        return Mesh(across_slices(sizes, devices), AXES, axis_types=types)
    return jax.make_mesh(tuple(sizes), AXES, axis_types=types, devices=devices)


def across_slices(sizes: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
    """Devices of several TPU slices, or of several machines with GPUs, in the order of a mesh.

    Only one mesh axis crosses the network between slices, and only in its outermost positions. It is `data`, which
    communicates once a step, or else `fsdp`, which communicates in every layer. `jax.make_mesh` refuses such devices.

    Raises:
        InputError: neither axis divides by the number of slices.
    """
    slices = len({device.slice_index for device in devices})
    within = list(sizes)
    between = [1] * len(AXES)
    crossing = next((i for i in (0, 1) if sizes[i] % slices == 0), None)
    if crossing is None:
        raise InputError(
            f"config: mesh data={sizes[0]}, fsdp={sizes[1]}: neither divides by the {slices} slices (or GPU nodes)"
            f" that the devices are in; set mesh.data={slices}"
        )
    within[crossing] = sizes[crossing] // slices
    between[crossing] = slices
    return mesh_utils.create_hybrid_device_mesh(
        within, between, devices, allow_split_physical_axes=True
    )


def decoding_mesh(mesh: Mesh, tensor: int) -> Mesh:
    """The same devices with `tensor` of them on the tensor axis, taken from the fsdp axis.

    Raises:
        InputError: `tensor` is not a multiple of the mesh's tensor axis that divides fsdp x tensor.
    """
    data, fsdp, train_tensor = (mesh.shape[name] for name in AXES)
    if tensor % train_tensor or fsdp * train_tensor % tensor:
        fit = [train_tensor * n for n in range(1, fsdp + 1) if fsdp % n == 0]
        raise InputError(
            f"config: mesh.decode_tensor = {tensor} does not fit fsdp={fsdp}, tensor={train_tensor}; choose of {fit}"
        )
    devices = mesh.devices.reshape(data, fsdp * train_tensor // tensor, tensor)
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def spec(*logical: str | None, rules: Rules = TRAIN_RULES) -> P:
    """Logical axes -> a partition spec.

    Raises:
        ValueError: two logical axes map to one mesh axis.
    """
    axes = [rules[name] if name else None for name in logical]
    used = [
        part for axis in axes if axis for part in (axis if isinstance(axis, tuple) else (axis,))
    ]
    if len(used) != len(set(used)):
        raise ValueError(f"logical axes {logical} land twice on one mesh axis: {used}")
    return P(*axes)


def constrain(x: jax.Array, *logical: str | None) -> jax.Array:
    """Constrains the sharding of `x` inside a jitted function; does nothing where no mesh is set."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(*logical))


def parameter_sharding(
    mesh: Mesh | AbstractMesh, path: str, shape: tuple[int, ...], rules: Rules = TRAIN_RULES
) -> NamedSharding:
    """The sharding of the parameter with this flat path.

    Raises:
        InputError: an axis does not divide. The message names the parameter, the axis and the sizes that would work.
    """
    for pattern, logical in PARAMETERS:
        if fnmatch.fnmatch(path, pattern):
            for size, name in zip(shape, logical, strict=True):
                axis = rules[name] if name else None
                if isinstance(axis, tuple):
                    rules = {**rules, name: _dividing_prefix(axis, size, mesh)}
                elif axis and size % mesh.shape[axis]:
                    fit = [n for n in range(1, mesh.size + 1) if size % n == 0]
                    raise InputError(
                        f"{path}: axis {name} of {size} does not divide by mesh {axis}={mesh.shape[axis]};"
                        f" choose {axis} of {', '.join(map(str, fit))}"
                    )
            try:
                return NamedSharding(mesh, spec(*logical, rules=rules))
            except ValueError as error:
                raise InputError(f"{path}: {error}; give one of them another axis") from error
    return NamedSharding(mesh, P())


def _dividing_prefix(
    axes: tuple[str, ...], size: int, mesh: Mesh | AbstractMesh
) -> tuple[str, ...] | None:
    """The longest prefix of `axes` whose product of sizes divides `size`; None if the first axis does not."""
    while axes and size % math.prod(mesh.shape[axis] for axis in axes):
        axes = axes[:-1]
    return axes or None


def parameter_shardings(mesh: Mesh, params: Any, rules: Rules = TRAIN_RULES) -> Any:
    """The shardings of a tree of parameters, of their shapes, or of an optimizer state.

    A leaf's last dictionary key is the flat path of its parameter. A leaf without one is copied to every device.
    """

    def place(keys: tuple, leaf: Any) -> NamedSharding:
        names = [key.key for key in keys if isinstance(key, jax.tree_util.DictKey)]
        scalar = not names or not leaf.shape
        return parameter_sharding(mesh, "" if scalar else names[-1], leaf.shape, rules)

    return jax.tree_util.tree_map_with_path(place, params)


def reshard(tree: Any, shardings: Any) -> Any:
    """Changes the shardings of arrays in one program, also from one mesh to another over the same devices.

    Args:
        shardings: one for all leaves, or a list with one for each leaf.
    """
    leaves, treedef = jax.tree.flatten(tree)
    if isinstance(shardings, NamedSharding):
        shardings = [shardings] * len(leaves)
    return treedef.unflatten(_resharding(tuple(shardings))(leaves))


@functools.cache
def _resharding(shardings: tuple[NamedSharding, ...]) -> Any:
    return jax.jit(lambda leaves: leaves, out_shardings=list(shardings))


def constrain_parameter(x: jax.Array, path: str | None = None) -> jax.Array:
    """Constrains `x` inside a jitted function to the sharding of the parameter at this path.

    Without a path, every device holds all of `x`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    sharding = parameter_sharding(mesh, path, x.shape).spec if path else P()
    return jax.lax.with_sharding_constraint(x, sharding)


def put_on_mesh(mesh: Mesh, tree: Any) -> Any:
    """Copies arrays that are not on the mesh yet, such as step counts and keys, to every device of it.

    Arrays that are on the mesh keep their sharding. An array with a SingleDeviceSharding is not on the mesh, even if
    the mesh has only that device: JAX treats the two as different types, and a step that takes one and returns the
    other is compiled twice.
    """
    devices = set(mesh.devices.flat)
    everywhere = NamedSharding(mesh, P())

    def place(x: jax.Array) -> jax.Array:
        single = isinstance(x.sharding, SingleDeviceSharding)
        if x.sharding.device_set == devices and not single:
            return x
        # device_put cannot send a key to other hosts; its bits can be sent.
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            bits = np.asarray(jax.random.key_data(x))
            return jax.jit(jax.random.wrap_key_data, out_shardings=everywhere)(bits)
        return jax.device_put(x, everywhere)

    return jax.tree.map(place, tree)


def num_data_shards(mesh: Mesh | AbstractMesh | None = None) -> int:
    """The number of data shards that a batch is split into: by default over the mesh that is set, else 1."""
    shape = (mesh or jax.sharding.get_abstract_mesh()).shape
    return shape.get("data", 1) * shape.get("fsdp", 1)


def local_data_shards(mesh: Mesh) -> list[int]:
    """The indices, in order, of the data shards of a batch that lie on this process's devices.

    Processes that split `tensor` between them hold the same shards and must be given the same rows.
    """
    data_axes = (mesh.shape["data"], mesh.shape["fsdp"])
    coordinates = zip(np.ndindex(mesh.devices.shape), mesh.devices.flat, strict=True)
    local = {
        np.ravel_multi_index((data, fsdp), data_axes)
        for (data, fsdp, _), device in coordinates
        if device.process_index == jax.process_index()
    }
    return sorted(int(shard) for shard in local)


def local_row_indices(mesh: Mesh, size: int) -> list[int]:
    """The indices of the rows of a global batch that this process supplies.

    If n hosts stand in order in the mesh, host i supplies the i-th of n equal parts.

    Args:
        size: rows over all processes.

    Raises:
        InputError: the rows do not divide by the number of data shards.
    """
    rows, left = divmod(size, num_data_shards(mesh))
    if left:
        raise _does_not_divide(size, num_data_shards(mesh))
    return [shard * rows + row for shard in local_data_shards(mesh) for row in range(rows)]


def _does_not_divide(size: float, num_shards: int) -> InputError:
    return InputError(
        f"config: batch_size / micro_batches = {size:g} does not divide by mesh data x fsdp = {num_shards};"
        f" make it a multiple of {num_shards}, or change the mesh"
    )


def shard_batch(mesh: Mesh, arrays: Any) -> Any:
    """This process's rows of a batch (`local_row_indices`) -> global arrays split over their first axis.

    Raises:
        InputError: the rows do not divide by the number of data shards.
    """
    sharding = NamedSharding(mesh, spec("batch"))
    num_shards = num_data_shards(mesh)
    local = local_data_shards(mesh)

    def place(array: Any) -> jax.Array:
        rows, left = divmod(array.shape[0], len(local))
        if left:
            raise _does_not_divide(array.shape[0] * num_shards / len(local), num_shards)
        shards = {shard * rows: array[i * rows : (i + 1) * rows] for i, shard in enumerate(local)}
        shape = (rows * num_shards, *array.shape[1:])
        # Devices are matched by index, not by process: a host's devices need not be neighbours in the mesh.
        indices = sharding.addressable_devices_indices_map(shape)
        parts = [shards[index[0].start or 0] for index in indices.values()]
        return jax.make_array_from_single_device_arrays(
            shape, sharding, jax.device_put(parts, list(indices))
        )

    return jax.tree.map(place, arrays)


def local_rows(mesh: Mesh, arrays: Any) -> Any:
    """Global arrays with one row for each row of a batch -> this process's rows, on the host.

    This is the inverse of `shard_batch`.
    """
    if jax.process_count() == 1:
        return jax.device_get(arrays)

    by_row = NamedSharding(mesh, spec("batch"))

    def read(array: jax.Array) -> np.ndarray:
        # An array that is split by rows already is read as soon as it is computed. Resharding would wait for every
        # program dispatched since.
        if not array.sharding.is_equivalent_to(by_row, array.ndim):
            array = _constrained(array, by_row)
        parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
        return np.concatenate([jax.device_get(parts[start]) for start in sorted(parts)])

    return jax.tree.map(read, arrays)


def all_rows(mesh: Mesh, arrays: Any) -> Any:
    """This process's rows of a batch, on the host -> the rows of the global batch, on every host."""
    return fetch_global(mesh, shard_batch(mesh, arrays)) if jax.process_count() > 1 else arrays


def fetch_global(mesh: Mesh, arrays: Any) -> Any:
    """Global arrays in any sharding -> their values on every host."""
    if jax.process_count() > 1:
        arrays = _constrained(arrays, NamedSharding(mesh, P()))
    return jax.device_get(arrays)


@functools.partial(jax.jit, static_argnames="sharding")
def _constrained(arrays: Any, sharding: NamedSharding) -> Any:
    return jax.lax.with_sharding_constraint(arrays, sharding)
