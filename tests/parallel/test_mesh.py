import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from sari_jax.errors import InputError
from sari_jax.parallel.mesh import (
    make_mesh,
    parameter_sharding,
    shard_batch,
    spec,
)


def test_one_axis_takes_what_the_others_leave():
    assert dict(make_mesh().shape) == {"data": 1, "fsdp": 8, "tensor": 1}
    assert dict(make_mesh(data=2, fsdp=-1, tensor=2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize("sizes", [(1, 3, 1), (1, -1, 3), (-1, -1, 1), (1, 0, 8)])
def test_sizes_that_do_not_cover_the_devices(sizes):
    with pytest.raises(InputError, match="does not cover 8 devices"):
        make_mesh(*sizes)


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
    ways = {"fsdp": 4, "tensor": 2, None: 1}
    local = [
        size // ways[axis]
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


def test_a_batch_is_split_over_its_rows():
    mesh = make_mesh(2, 2, 2)
    rows = shard_batch(mesh, {"x": np.arange(24).reshape(8, 3)})["x"]
    assert rows.sharding.spec == P(("data", "fsdp"))
    assert rows.addressable_shards[0].data.shape == (2, 3)
    np.testing.assert_array_equal(jax.device_get(rows), np.arange(24).reshape(8, 3))
    with pytest.raises(InputError, match="= 6 does not divide by mesh data x fsdp = 4"):
        shard_batch(mesh, np.zeros((6, 3)))
