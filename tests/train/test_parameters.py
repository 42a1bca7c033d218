"""What a run starts from, and what of it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from sari_jax.errors import InputError
from sari_jax.hf.config import read_config
from sari_jax.models.config import Adapter
from sari_jax.models.lora import is_adapter
from sari_jax.parallel.mesh import make_mesh
from sari_jax.train.config import Model, Run
from sari_jax.train.parameters import learning, shapes_of, starting_params, table

ADAPTER = Adapter(2, targets=("decoder/layers/[qv]_proj", "tower/layers/up_proj"))
FACTORS = {
    f"{path}/lora_{letter}"
    for path in ("decoder/layers/q_proj", "decoder/layers/v_proj", "tower/layers/up_proj")
    for letter in "ab"
}


def started(model, **settings):
    run = Run(model=Model(path=str(model.directory), **settings))
    config = read_config(model.directory, adapter=run.model.network_adapter)
    return run, config, *starting_params(run, config, make_mesh(8, 1, 1))


@pytest.mark.numerics
@pytest.mark.parametrize("beside", [(), ("projector/*",)], ids=["alone", "with the projector"])
def test_an_adapter_learns_and_what_is_named_beside_it(beside, one_tiny):
    run, config, trainable, frozen = started(
        one_tiny, adapter=ADAPTER, trainable=beside, frozen_dtype="bfloat16"
    )
    full = {"projector/kernel", "projector/bias"} if beside else set()
    assert set(trainable) == FACTORS | full
    assert {x.dtype.name for x in trainable.values()} == {"float32"}
    assert {x.dtype.name for x in frozen.values()} == {"bfloat16"}
    assert not any(map(is_adapter, frozen))
    for path, array in tiny.flatten(one_tiny.params).items():
        here = {**trainable, **frozen}[path]
        np.testing.assert_array_equal(here, array.astype(here.dtype), err_msg=path)
    found = shapes_of(run.model, config)
    for shapes, arrays in zip(found, (trainable, frozen), strict=True):
        assert {p: (x.shape, x.dtype) for p, x in shapes.items()} == {
            p: (x.shape, x.dtype) for p, x in arrays.items()
        }
    parts = learning(trainable)
    assert parts["adapted"] == {"decoder", "tower"} and parts["learns"] == (
        {"projector"} if beside else set()
    )


def test_without_one_projector_and_decoder_learn(one_tiny):
    _, config, trainable, frozen = started(one_tiny)
    assert config.adapter is None and not any(map(is_adapter, trainable))
    assert {path.split("/")[0] for path in trainable} == {"projector", "decoder"}
    assert {path.split("/")[0] for path in frozen} == {"tower"}
    assert {x.dtype for x in (trainable | frozen).values()} == {jnp.dtype("float32")}


@pytest.mark.numerics
def test_the_seed_is_the_runs(one_tiny):
    config = read_config(one_tiny.directory, adapter=ADAPTER)
    model = Model(path=str(one_tiny.directory), adapter=ADAPTER)
    path = "decoder/layers/q_proj/lora_a"
    first, again, other = (
        starting_params(Run(model=model, seed=seed), config, make_mesh())[0][path]
        for seed in (1, 1, 2)
    )
    assert (first == again).all() and (first != other).all()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (dict(adapter=Adapter(2, targets=("decoder/q",))), "targets pattern 'decoder/q' matches no projection"),
        (dict(adapter=ADAPTER, trainable=("head/*",)), "trainable pattern 'head/\\*' matches no parameter"),
    ],
)  # fmt: skip
def test_patterns_that_match_nothing(settings, told, one_tiny):
    with pytest.raises(InputError, match=told):
        started(one_tiny, **settings)


def test_a_table_of_what_learns():
    shapes = {
        "projector/kernel": jax.ShapeDtypeStruct((1280, 4096), jnp.float32),
        "decoder/layers/q_proj/lora_a": jax.ShapeDtypeStruct((32, 4096, 8), jnp.float32),
    }
    assert table(shapes).splitlines() == [
        "  trained                       shape              count",
        "  decoder/layers/q_proj/lora_a  32 x 4096 x 8  1,048,576",
        "  projector/kernel              1280 x 4096    5,242,880",
        "  all of them                                  6,291,456",
    ]
