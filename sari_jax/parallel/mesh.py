"""One rules from logical axes to mesh axes; change the rules and the sharding changes.

Mesh axes: `data` (copies, across slices), `fsdp` (parameters split, batch split), `tensor` (heads, ffn, vocabulary).

Decoding has a rules of its own, in which weights are split over `tensor` alone, and lays the same devices out with more
of them on that axis: a decoded token reads weights where they lie and gathers none.
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
    # An adapter's one long axis takes both, as far as they divide it: its gradients and moments are wide.
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


def _long(axis: str | None) -> str | None:
    """What an adapter calls an axis of its kernel."""
    return axis and f"adapter_{axis}"


# The first pattern that fits a parameter's path names its axes; what none fits (norms, biases, convolutions,
# positions) is small and replicated.
KERNELS: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    ("projector", (None, "embed")),
    ("*/layers/[qkv]_proj", ("layers", "embed", "heads")),
    ("*/layers/o_proj", ("layers", "heads", "embed")),
    ("*/layers/gate_proj", ("layers", "embed", "ffn")),
    ("*/layers/up_proj", ("layers", "embed", "ffn")),
    ("*/layers/down_proj", ("layers", "ffn", "embed")),
)
# An adapter's A is split by its kernel's inputs and B by the outputs; nothing splits the rank.
PARAMETERS: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    ("decoder/embed/embedding", ("vocabulary", "embed")),
    ("decoder/head/embedding", ("vocabulary", "embed")),
    *((f"{path}/kernel", axes) for path, axes in KERNELS),
    *((f"{path}/kernel_scale", (*axes[:-2], None, axes[-1])) for path, axes in KERNELS),
    *((f"{path}/lora_a", (*axes[:-2], _long(axes[-2]), None)) for path, axes in KERNELS),
    *((f"{path}/lora_b", (*axes[:-2], None, _long(axes[-1]))) for path, axes in KERNELS),
)


def make_mesh(
    data: int = 1, fsdp: int = -1, tensor: int = 1, *, devices: Sequence[Any] | None = None
) -> Mesh:
    """A mesh over all devices; one axis may be -1 and takes what the others leave.

    Args:
        devices: all there are, unless given.

    Raises:
        InputError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes, count = [data, fsdp, tensor], len(devices)
    known = math.prod(size for size in sizes if size > 0)
    if sizes.count(-1) == 1 and count % known == 0:
        sizes[sizes.index(-1)] = count // known
        known = count
    told = ", ".join(
        f"{name}={size}" for name, size in zip(AXES, (data, fsdp, tensor), strict=True)
    )
    if known != count or min(sizes) < 1:
        raise InputError(
            f"config: mesh {told} does not cover {count} devices; their product must be {count}"
        )
    types = (AxisType.Auto,) * len(AXES)
    if len({getattr(device, "slice_index", 0) for device in devices}) > 1:
        return Mesh(across_slices(sizes, devices), AXES, axis_types=types)
    return jax.make_mesh(tuple(sizes), AXES, axis_types=types, devices=devices)


def across_slices(sizes: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
    """Devices of several TPU slices, or of several machines with GPUs, in the order of a mesh.

    One axis alone crosses the network between them, and only in its outermost steps: `data`, whose copies talk once a
    step, or else `fsdp`, whose parts talk in every layer. `jax.make_mesh` refuses such devices.

    Raises:
        InputError: neither axis divides by the number of slices.
    """
    slices = len({device.slice_index for device in devices})
    within, between = list(sizes), [1] * len(AXES)
    crossing = next((i for i in (0, 1) if sizes[i] % slices == 0), None)
    if crossing is None:
        raise InputError(
            f"config: mesh data={sizes[0]}, fsdp={sizes[1]}: neither divides by the {slices} slices (or GPU nodes)"
            f" that the devices are in; set mesh.data={slices}"
        )
    within[crossing], between[crossing] = sizes[crossing] // slices, slices
    return mesh_utils.create_hybrid_device_mesh(
        within, between, devices, allow_split_physical_axes=True
    )


def decoding_mesh(mesh: Mesh, tensor: int) -> Mesh:
    """The same devices, of which `tensor` neighbours share a layer's heads: taken from `fsdp`.

    Raises:
        InputError: not a multiple of the mesh's own `tensor` that divides fsdp x tensor.
    """
    data, fsdp, own = (mesh.shape[name] for name in AXES)
    if tensor % own or fsdp * own % tensor:
        fit = [own * n for n in range(1, fsdp + 1) if fsdp % n == 0]
        raise InputError(
            f"config: mesh.decode_tensor = {tensor} does not fit fsdp={fsdp}, tensor={own}; choose of {fit}"
        )
    laid = mesh.devices.reshape(data, fsdp * own // tensor, tensor)
    return Mesh(laid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def spec(*logical: str | None, rules: Rules = TRAIN_RULES) -> P:
    """Logical axes -> a partition spec; two of them on one mesh axis is refused."""
    axes = [rules[name] if name else None for name in logical]
    used = [
        part for axis in axes if axis for part in (axis if isinstance(axis, tuple) else (axis,))
    ]
    if len(used) != len(set(used)):
        raise ValueError(f"logical axes {logical} land twice on one mesh axis: {used}")
    return P(*axes)


def constrain(x: jax.Array, *logical: str | None) -> jax.Array:
    """Says inside a jitted function how `x` lies over the mesh that is set; nothing where none is."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(*logical))


def parameter_sharding(
    mesh: Mesh | AbstractMesh, path: str, shape: tuple[int, ...], rules: Rules = TRAIN_RULES
) -> NamedSharding:
    """The sharding of the parameter with this flat path.

    Raises:
        InputError: an axis does not divide; tensor, axis and the sizes that would work are named.
    """
    for pattern, logical in PARAMETERS:
        if fnmatch.fnmatch(path, pattern):
            for size, name in zip(shape, logical, strict=True):
                axis = rules[name] if name else None
                if isinstance(axis, tuple):
                    rules = {**rules, name: _dividing(axis, size, mesh)}
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


def _dividing(
    axes: tuple[str, ...], size: int, mesh: Mesh | AbstractMesh
) -> tuple[str, ...] | None:
    """The longest beginning of `axes` whose sizes, multiplied, divide `size`; None if not even the first does."""
    while axes and size % math.prod(mesh.shape[axis] for axis in axes):
        axes = axes[:-1]
    return axes or None


def parameter_shardings(mesh: Mesh, params: Any, rules: Rules = TRAIN_RULES) -> Any:
    """The shardings of a tree of parameters, of their shapes, or of what an optimizer keeps for each.

    A leaf is known by the last of its keys, a parameter's flat path; what has none is copied to every device.
    """

    def place(keys: tuple, leaf: Any) -> NamedSharding:
        names = [key.key for key in keys if isinstance(key, jax.tree_util.DictKey)]
        scalar = not names or not leaf.shape
        return parameter_sharding(mesh, "" if scalar else names[-1], leaf.shape, rules)

    return jax.tree_util.tree_map_with_path(place, params)


def move(tree: Any, shardings: Any) -> Any:
    """Lays arrays out anew, between layouts of the same devices too, in one program.

    Args:
        shardings: one for all, or a list of one for each leaf.
    """
    leaves, form = jax.tree.flatten(tree)
    if isinstance(shardings, NamedSharding):
        shardings = [shardings] * len(leaves)
    return form.unflatten(_mover(tuple(shardings))(leaves))


@functools.cache
def _mover(shardings: tuple[NamedSharding, ...]) -> Any:
    return jax.jit(lambda leaves: leaves, out_shardings=list(shardings))


def constrain_parameter(x: jax.Array, path: str | None = None) -> jax.Array:
    """Says inside a jitted function that `x` lies as the parameter of this path; without one, whole on every device."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    lies = parameter_sharding(mesh, path, x.shape).spec if path else P()
    return jax.lax.with_sharding_constraint(x, lies)


def onto_mesh(mesh: Mesh, tree: Any) -> Any:
    """Copies what is not on the mesh yet, step counts and keys, to every device; what is, stays as it lies.

    An array that names its device alone is not on the mesh, even if the mesh has that device only. JAX takes the two
    for different types: a step that is given the one and returns the other is compiled twice.
    """
    devices, everywhere = set(mesh.devices.flat), NamedSharding(mesh, P())

    def place(x: jax.Array) -> jax.Array:
        alone = isinstance(x.sharding, SingleDeviceSharding)
        if x.sharding.device_set == devices and not alone:
            return x
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):  # a key goes to other hosts as its numbers
            bits = np.asarray(jax.random.key_data(x))
            return jax.jit(jax.random.wrap_key_data, out_shardings=everywhere)(bits)
        return jax.device_put(x, everywhere)

    return jax.tree.map(place, tree)


def num_data_shards(mesh: Mesh | AbstractMesh | None = None) -> int:
    """How many parts a batch is split into, by default over the mesh that is set; one where none is."""
    shape = (mesh or jax.sharding.get_abstract_mesh()).shape
    return shape.get("data", 1) * shape.get("fsdp", 1)


def local_data_shards(mesh: Mesh) -> list[int]:
    """Which of the `num_data_shards` parts of a batch lie on this process's devices, in order.

    Processes that split `tensor` between them hold, and are fed, the same parts.
    """
    axes, shape = ("data", "fsdp"), mesh.shape
    places = zip(np.ndindex(mesh.devices.shape), mesh.devices.flat, strict=True)
    own = {
        np.ravel_multi_index(place[: len(axes)], [shape[axis] for axis in axes])
        for place, device in places
        if device.process_index == jax.process_index()
    }
    return sorted(int(way) for way in own)


def local_row_indices(mesh: Mesh, size: int) -> list[int]:
    """The rows of a global batch that this process feeds: with n hosts in order, host i's the i-th n-th of them.

    Args:
        size: rows over all processes.

    Raises:
        InputError: the rows do not divide by the devices that split them.
    """
    rows, left = divmod(size, num_data_shards(mesh))
    if left:
        raise _undivided(size, num_data_shards(mesh))
    return [way * rows + row for way in local_data_shards(mesh) for row in range(rows)]


def _undivided(size: float, num_shards: int) -> InputError:
    return InputError(
        f"config: batch_size / micro_batches = {size:g} does not divide by mesh data x fsdp = {num_shards}"
    )


def shard_batch(mesh: Mesh, arrays: Any) -> Any:
    """This process's rows of a batch, those of `local_row_indices` -> global arrays split over their first axis.

    Raises:
        InputError: the rows do not divide by the devices that split them.
    """
    sharding = NamedSharding(mesh, spec("batch"))
    num_shards, own = num_data_shards(mesh), local_data_shards(mesh)

    def place(array: Any) -> jax.Array:
        rows, left = divmod(array.shape[0], len(own))
        if left:
            raise _undivided(array.shape[0] * num_shards / len(own), num_shards)
        here = {way * rows: array[i * rows : (i + 1) * rows] for i, way in enumerate(own)}
        shape = (rows * num_shards, *array.shape[1:])
        # By place and not by process: a host's devices need not stand side by side in the mesh.
        places = sharding.addressable_devices_indices_map(shape)
        parts = [here[at[0].start or 0] for at in places.values()]
        return jax.make_array_from_single_device_arrays(
            shape, sharding, jax.device_put(parts, list(places))
        )

    return jax.tree.map(place, arrays)


def local_rows(mesh: Mesh, arrays: Any) -> Any:
    """The other way: global arrays with a row each for a batch's -> this process's rows, on the host."""
    if jax.process_count() == 1:
        return jax.device_get(arrays)

    lies = NamedSharding(mesh, spec("batch"))

    def read(array: jax.Array) -> np.ndarray:
        # What lies so already is read as soon as it is there, whatever the devices were given to do since.
        if not array.sharding.is_equivalent_to(lies, array.ndim):
            array = _copied(array, lies)
        parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
        return np.concatenate([jax.device_get(parts[start]) for start in sorted(parts)])

    return jax.tree.map(read, arrays)


def all_rows(mesh: Mesh, arrays: Any) -> Any:
    """This process's rows of a batch, on the host -> the whole batch's, on every host."""
    return whole(mesh, shard_batch(mesh, arrays)) if jax.process_count() > 1 else arrays


def whole(mesh: Mesh, arrays: Any) -> Any:
    """Global arrays, however they lie -> their values on every host."""
    if jax.process_count() > 1:
        arrays = _copied(arrays, NamedSharding(mesh, P()))
    return jax.device_get(arrays)


@functools.partial(jax.jit, static_argnames="sharding")
def _copied(arrays: Any, sharding: NamedSharding) -> Any:
    return jax.lax.with_sharding_constraint(arrays, sharding)
