"""Projections in eight bits: the network whose kernels they stand for, wherever they lie."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from sari_jax.errors import InputError
from sari_jax.generate.layout import DecodingPolicy
from sari_jax.hf.config import read_config
from sari_jax.models.audio_lm import bind
from sari_jax.models.config import Adapter
from sari_jax.models.lora import without_adapter
from sari_jax.models.quantized import is_quantized, quantized, scale_of
from sari_jax.parallel.mesh import decoding_mesh, make_mesh
from sari_jax.sft.loss import sft_loss
from sari_jax.train.config import Model, Run
from sari_jax.train.optimizer import merge, partition
from sari_jax.train.parameters import shapes_of, starting_params

ADAPTER = Adapter(3, alpha=5.0)
QUESTIONS = [tiny.question([0.51], 9, 1), tiny.question([0.33, 0.9137], 14, 2)]
ANSWERS = tiny.answers((5, 8), 4)
WIDE = tiny.Sizes(heads=8, kv_heads=8, head_dim=4, tower_heads=4, tower_width=32)


def test_loss_and_gradient_of_the_kernels_they_stand_for(one_tiny):
    """Forward and gradient of projector and adapters; without the adapters too, as the reference is."""
    model = tiny.adapted(one_tiny, ADAPTER)
    config = dataclasses.replace(model.config, quantized="int8")
    flat = {path: jnp.asarray(x) for path, x in tiny.flatten(model.params).items()}
    eight = dict(flat)
    for path in filter(is_quantized, flat):
        eight[path], eight[scale_of(path)] = quantized(flat[path])
    rounded = {
        path: eight[path] * eight[scale_of(path)] if is_quantized(path) else x
        for path, x in flat.items()
    }
    assert sum(is_quantized(path) for path in flat) == 7
    moved = [float(jnp.abs(rounded[path] - x).max()) for path, x in flat.items()]
    assert sum(change > 1e-4 for change in moved) == 7  # else nothing is shown
    prompts = tiny.prompts(QUESTIONS)
    ids, mask = (jnp.array(x)[:, None] for x in tiny.padded(ANSWERS, 8))

    def of(config, flat, remat="none"):
        config = dataclasses.replace(config, remat=remat)
        learns, frozen = partition(merge(flat, {}), ("*/lora_[ab]", "projector/*"))

        @jax.jit
        def both(learns, frozen):
            loss = lambda p: sft_loss(bind(config, merge(p, frozen)), prompts, ids, mask)[0]  # noqa: E731
            bare = {path: x for path, x in frozen.items()}
            bare |= {path: x for path, x in learns.items() if path.startswith("projector/")}
            network = bind(without_adapter(config), merge(bare, {}))
            return jax.value_and_grad(loss)(learns), network.prompt_logits(prompts)

        return jax.device_get(both(learns, frozen))

    (loss, gradient), logits = of(config, eight)
    (wanted_loss, wanted), wanted_logits = of(model.config, rounded)
    assert float(loss) == pytest.approx(float(wanted_loss), rel=1e-6)
    tiny.assert_close(gradient, wanted, 1e-5)
    np.testing.assert_allclose(logits, wanted_logits, rtol=0, atol=1e-5)
    (again, recomputed), _ = of(config, eight, remat="layer")
    assert float(again) == pytest.approx(float(loss), rel=1e-6)
    tiny.assert_close(recomputed, gradient, 1e-5)


@pytest.mark.parametrize("mesh", [(1, 1, 1), (1, 2, 4)], ids=["one device", "eight"])
def test_read_from_a_directory(mesh, tmp_path):
    """The same whole numbers over any devices, the rest as narrow as activations; decoding keeps them."""
    model = tiny.make(tmp_path / "wide", WIDE)
    settings = Model(str(model.directory), adapter=ADAPTER, frozen_dtype="int8", dtype="bfloat16")
    config = read_config(model.directory, **settings.network)
    devices = jax.devices()[: int(np.prod(mesh))]
    over = make_mesh(*mesh, devices=devices)
    trainable, frozen = starting_params(Run(model=settings), config, over)
    assert set(trainable) == {path for path in trainable if "/lora_" in path}
    for path, array in tiny.flatten(model.params).items():
        found = np.asarray(frozen[path])
        if is_quantized(path):
            assert found.dtype == np.int8 and frozen[path].sharding.mesh == over
            scale = np.asarray(frozen[scale_of(path)])
            np.testing.assert_allclose(
                scale, np.abs(array).max(-2, keepdims=True) / 127.5, rtol=1e-6
            )
            assert (np.abs(found * scale - array) <= 0.5001 * scale).all(), path
        else:
            np.testing.assert_array_equal(found, array.astype(jnp.bfloat16), err_msg=path)
    for shapes, arrays in zip(shapes_of(settings, config), (trainable, frozen), strict=True):
        assert {p: (x.shape, x.dtype) for p, x in shapes.items()} == {
            p: (x.shape, x.dtype) for p, x in arrays.items()
        }
    policy = DecodingPolicy(config, decoding_mesh(over, mesh[2]))
    flat = policy.needed({**frozen, **trainable})
    laid_out = tiny.flatten(policy(flat))
    for path, array in flat.items():
        narrow = jnp.bfloat16 if "/lora_" in path else array.dtype
        assert laid_out[path].dtype == narrow, path
    if len(devices) == 1:
        assert set(policy.changing(flat)) == set(trainable)


def test_what_is_in_eight_bits_does_not_learn(one_tiny):
    settings = Model(
        str(one_tiny.directory),
        adapter=ADAPTER,
        frozen_dtype="int8",
        trainable=("decoder/layers/q_proj/*",),
    )
    config = read_config(one_tiny.directory, **settings.network)
    with pytest.raises(
        InputError, match="would train decoder/layers/q_proj/kernel.* in eight bits"
    ):
        shapes_of(settings, config)
