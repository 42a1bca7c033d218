"""One table from logical axes to mesh axes; change the table and the sharding changes.

Mesh axes: `data` (copies, across slices), `fsdp` (parameters split, batch split), `tensor` (heads, ffn, vocabulary).
"""

import fnmatch
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sari_jax.errors import InputError

AXES = ("data", "fsdp", "tensor")
TABLE: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "layers": None,
    "embed": "fsdp",
    "heads": "tensor",
    "ffn": "tensor",
    "vocabulary": "tensor",
}
# The first pattern that fits a parameter's path names its axes; what none fits (norms, biases, convolutions,
# positions) is small and replicated.
PARAMETERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("decoder/embed/embedding", ("vocabulary", "embed")),
    ("decoder/head/embedding", ("vocabulary", "embed")),
    ("*/layers/[qkv]_proj/kernel", ("layers", "embed", "heads")),
    ("*/layers/o_proj/kernel", ("layers", "heads", "embed")),
    ("*/layers/gate_proj/kernel", ("layers", "embed", "ffn")),
    ("*/layers/up_proj/kernel", ("layers", "embed", "ffn")),
    ("*/layers/down_proj/kernel", ("layers", "ffn", "embed")),
)


def make_mesh(data: int = 1, fsdp: int = -1, tensor: int = 1) -> Mesh:
    """A mesh over all devices; one axis may be -1 and takes what the others leave.

    Raises:
        InputError: the sizes do not multiply to the number of devices.
    """
    sizes, devices = [data, fsdp, tensor], jax.device_count()
    known = 1
    for size in sizes:
        known *= size if size > 0 else 1
    if sizes.count(-1) == 1 and devices % known == 0:
        sizes[sizes.index(-1)] = devices // known
        known = devices
    if known != devices or min(sizes) < 1:
        told = ", ".join(
            f"{name}={size}" for name, size in zip(AXES, (data, fsdp, tensor), strict=True)
        )
        raise InputError(
            f"config: mesh {told} does not cover {devices} devices; their product must be {devices}"
        )
    types = (AxisType.Auto,) * len(AXES)
    if len({getattr(device, "slice_index", 0) for device in jax.devices()}) > 1:
        return Mesh(across_slices(sizes, jax.devices()), AXES, axis_types=types)
    return jax.make_mesh(tuple(sizes), AXES, axis_types=types)


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


def spec(*logical: str | None) -> P:
    """Logical axes -> a partition spec; two of them on one mesh axis is refused."""
    axes = [TABLE[name] if name else None for name in logical]
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


def parameter_sharding(mesh: Mesh, path: str, shape: tuple[int, ...]) -> NamedSharding:
    """Where a parameter with this flat path lives.

    Raises:
        InputError: an axis does not divide; tensor, axis and sizes are named.
    """
    for pattern, logical in PARAMETERS:
        if fnmatch.fnmatch(path, pattern):
            for size, name in zip(shape, logical, strict=True):
                axis = TABLE[name]
                if axis and size % mesh.shape[axis]:
                    raise InputError(
                        f"{path}: axis {name} of {size} does not divide by mesh {axis}={mesh.shape[axis]};"
                        f" choose a divisor of {size}"
                    )
            return NamedSharding(mesh, spec(*logical))
    return NamedSharding(mesh, P())


def onto_mesh(mesh: Mesh, tree: Any) -> Any:
    """Copies what is not on the mesh yet, step counts and keys, to every device; what is, stays as it lies."""
    devices, everywhere = set(mesh.devices.flat), NamedSharding(mesh, P())
    return jax.tree.map(
        lambda x: x if x.sharding.device_set == devices else jax.device_put(x, everywhere), tree
    )


def batch_ways(mesh: Mesh | AbstractMesh | None = None) -> int:
    """How many parts a batch is split into, by default over the mesh that is set; one where none is."""
    shape = (mesh or jax.sharding.get_abstract_mesh()).shape
    return shape.get("data", 1) * shape.get("fsdp", 1)


def shard_batch(mesh: Mesh, arrays: Any) -> Any:
    """This process's part of a batch -> global arrays split over their first axis.

    Raises:
        InputError: the rows do not divide by the devices that split them.
    """
    sharding = NamedSharding(mesh, spec("batch"))
    ways = batch_ways(mesh)

    def place(array: Any) -> jax.Array:
        rows = array.shape[0] * jax.process_count()
        if rows % ways:
            raise InputError(
                f"config: batch_size / micro_batches = {rows} does not divide by mesh data x fsdp = {ways}"
            )
        return jax.make_array_from_process_local_data(sharding, array)

    return jax.tree.map(place, arrays)
