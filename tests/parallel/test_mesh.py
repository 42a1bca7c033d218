from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from sari_jax.errors import InputError
from sari_jax.parallel.mesh import (
    DECODE_RULES,
    TRAIN_RULES,
    across_slices,
    make_mesh,
    parameter_sharding,
    put_on_mesh,
    shard_batch,
    spec,
)


def test_an_adapter_is_split_as_far_as_its_long_axis_divides():
    mesh, path = make_mesh(1, 2, 4), "decoder/layers/v_proj/lora_b"
    for size, axes in ((16, ("tensor", "fsdp")), (12, ("tensor",)), (6, None)):
        found = parameter_sharding(mesh, path, (2, 3, size))
        assert found.spec == P(None, None, axes), size
    decoding = parameter_sharding(mesh, path, (2, 3, 16), DECODE_RULES)
    assert decoding.spec == P(None, None, "tensor")


def test_one_axis_takes_what_the_others_leave():
    assert dict(make_mesh().shape) == {"data": 1, "fsdp": 8, "tensor": 1}
    assert dict(make_mesh(data=2, fsdp=-1, tensor=2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize("sizes", [(1, 3, 1), (1, -1, 3), (-1, -1, 1), (1, 0, 8)])
def test_sizes_that_do_not_cover_the_devices(sizes):
    with pytest.raises(InputError, match="does not cover 8 devices"):
        make_mesh(*sizes)


def slices(count: int, each: tuple[int, int], platform: str = "gpu") -> list:
    """Devices as several TPU slices, or machines with GPUs, show them."""
    kind = {"gpu": "NVIDIA H100", "tpu": "TPU v5 lite"}[platform]
    return [
        SimpleNamespace(
            id=id, platform=platform, device_kind=kind, slice_index=part, coords=(x, y, 0), core_on_chip=0
        )
        for id, (part, y, x) in enumerate(np.ndindex(count, each[1], each[0]))
    ]  # fmt: skip


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
@pytest.mark.parametrize("sizes", [(2, 16, 1), (4, 4, 2), (1, 32, 1), (1, 16, 2)])
def test_one_axis_crosses_between_slices_and_no_other(platform, sizes):
    mesh = across_slices(sizes, slices(2, (4, 4), platform))
    assert mesh.shape == sizes
    assert len({device.id for device in mesh.flat}) == 32
    where = np.vectorize(lambda device: device.slice_index)(mesh)
    crossing = 0 if sizes[0] > 1 else 1
    along = np.moveaxis(where, crossing, 0).reshape(sizes[crossing], -1)
    assert (along == along[:, :1]).all()  # the same for every place on the other axes
    assert along[:, 0].tolist() == sorted(along[:, 0])  # and crossed once


def test_slices_that_no_axis_divides_by():
    with pytest.raises(
        InputError, match=r"data=1, fsdp=4: neither divides by the 3 slices .* mesh.data=3"
    ):
        across_slices((1, 4, 3), slices(3, (2, 2)))


@pytest.mark.parametrize(
    ("path", "shape", "wanted"),
    [
        ("decoder/embed/embedding", (64, 16), P("tensor", "fsdp")),
        ("decoder/layers/q_proj/kernel", (2, 16, 8), P(None, "fsdp", "tensor")),
        ("tower/layers/o_proj/kernel", (2, 8, 16), P(None, "tensor", "fsdp")),
        ("decoder/layers/down_proj/kernel", (2, 32, 16), P(None, "tensor", "fsdp")),
        ("decoder/layers/attention_norm/scale", (2, 16), P()),
        ("tower/conv1/kernel", (3, 80, 16), P()),
    ],
)
def test_parameters_lie_where_the_table_says(path, shape, wanted):
    mesh = make_mesh(1, 4, 2)
    assert parameter_sharding(mesh, path, shape).spec == wanted
    placed = jax.device_put(jnp.zeros(shape), parameter_sharding(mesh, path, shape))
    num_shards = {"fsdp": 4, "tensor": 2, None: 1}
    local = [
        size // num_shards[axis]
        for size, axis in zip(shape, tuple(wanted) or (None,) * len(shape), strict=True)
    ]
    assert placed.addressable_shards[0].data.shape == tuple(local)


def test_an_axis_that_does_not_divide_is_named():
    with pytest.raises(
        InputError, match="decoder/embed/embedding: axis vocabulary of 63 .* tensor=2"
    ):
        parameter_sharding(make_mesh(1, 4, 2), "decoder/embed/embedding", (63, 16))


def test_two_logical_axes_on_one_mesh_axis_are_refused():
    with pytest.raises(ValueError, match="twice"):
        spec("heads", "ffn")


def test_a_table_with_a_collision_names_the_parameter():
    table = {**TRAIN_RULES, "ffn": "fsdp"}
    with pytest.raises(
        InputError, match="up_proj/kernel: logical axes .* land twice on one mesh axis"
    ):
        parameter_sharding(make_mesh(), "decoder/layers/up_proj/kernel", (2, 8, 16), table)


def test_a_batch_is_split_over_its_rows():
    mesh = make_mesh(2, 2, 2)
    rows = shard_batch(mesh, {"x": np.arange(24).reshape(8, 3)})["x"]
    assert rows.sharding.spec == P(("data", "fsdp"))
    assert rows.addressable_shards[0].data.shape == (2, 3)
    np.testing.assert_array_equal(jax.device_get(rows), np.arange(24).reshape(8, 3))
    with pytest.raises(InputError, match="= 6 does not divide by mesh data x fsdp = 4"):
        shard_batch(mesh, np.zeros((6, 3)))


def test_on_a_mesh_of_one_device_what_goes_into_a_program_is_of_the_type_that_comes_out():
    """Else the second step of every run on one device would be compiled anew."""
    mesh, traced = make_mesh(1, 1, 1, devices=jax.devices()[:1]), []

    @jax.jit
    def step(count, batch):
        traced.append(count)
        return count + batch.sum()

    batch = shard_batch(mesh, np.ones(2, np.int32))
    count = put_on_mesh(mesh, jnp.zeros((), jnp.int32))
    assert put_on_mesh(mesh, count) is count
    with jax.set_mesh(mesh):
        assert step(step(count, batch), batch) == 4 and len(traced) == 1
