"""Projections in eight bits: the network whose kernels they stand for, wherever they lie."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from sari_jax.errors import InputError
from sari_jax.generate.layout import DecodingPolicy
from sari_jax.hf.config import read_config
from sari_jax.hf.load import load_params
from sari_jax.models.audio_lm import bind
from sari_jax.models.config import Adapter
from sari_jax.models.lora import without_adapter
from sari_jax.models.quantized import in_eight_bits, scale_of, to_int8
from sari_jax.parallel.mesh import (
    DECODE_RULES,
    TRAIN_RULES,
    decoding_mesh,
    make_mesh,
    parameter_sharding,
)
from sari_jax.sft.loss import sft_loss
from sari_jax.train.config import Model, Run
from sari_jax.train.optimizer import merge, partition
from sari_jax.train.parameters import shapes_of, starting_params

ADAPTER = Adapter(3, alpha=5.0)
QUESTIONS = [tiny.question([0.51], 9, 1), tiny.question([0.33, 0.9137], 14, 2)]
ANSWERS = tiny.answers((5, 8), 4)
WIDE = tiny.Sizes(heads=8, kv_heads=8, head_dim=4, tower_heads=4, tower_width=32)


def by_hand(kernel):
    largest = np.abs(kernel).max(-2, keepdims=True)
    scale = np.where(largest > 0, largest / np.float32(127), np.float32(1))
    return np.rint(kernel / scale).clip(-127, 127).astype(np.int8), scale


@functools.partial(jax.jit, static_argnums=0)
def logits(config, flat, prompts, features):
    """Logits of projector and decoder for given features of the tower."""
    model = bind(config, merge(flat, {}))
    return model.decoder.logits(model.decoder.prefill(model.embed(prompts, features))[0])


def results(config, flat, remat="none"):
    """Loss and gradient of projector and adapters, and logits without adapters, as the reference is."""
    config = dataclasses.replace(config, remat=remat)
    prompts = tiny.prompts(QUESTIONS)
    ids, mask = (jnp.array(x)[:, None] for x in tiny.padded(ANSWERS, 8))
    learns, frozen = partition(merge(flat, {}), ("*/lora_[ab]", "projector/*"))

    @jax.jit
    def found(learns, frozen):
        def loss(learns):
            return sft_loss(bind(config, merge(learns, frozen)), prompts, ids, mask)[0]

        projector = {path: x for path, x in learns.items() if path.startswith("projector/")}
        network = bind(without_adapter(config), merge(projector, frozen))
        return jax.value_and_grad(loss)(learns), network.prompt_logits(prompts)

    return jax.device_get(found(learns, frozen))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A model with adapters in eight bits, and with the kernels that those stand for."""
    made = tiny.make(tmp_path_factory.mktemp("models") / "tiny", tiny.Sizes())
    model = tiny.adapted(made, ADAPTER)
    flat = {path: jnp.asarray(x) for path, x in tiny.flatten(model.params).items()}
    eight, rounded = dict(flat), dict(flat)
    for path in filter(in_eight_bits, flat):
        eight[path], eight[scale_of(path)] = to_int8(flat[path])
        rounded[path] = eight[path] * eight[scale_of(path)]
        assert jnp.abs(rounded[path] - flat[path]).max() > 1e-4  # else nothing is shown
    return dataclasses.replace(model.config, quantized="int8"), eight, model.config, rounded


def test_logits_of_the_kernels_they_stand_for(both):
    config, eight, plain, rounded = both
    noise = np.random.default_rng(0).standard_normal((2, 2, 25, tiny.Sizes().tower_width))
    given = tiny.prompts(QUESTIONS), noise.astype(np.float32)
    np.testing.assert_allclose(
        logits(config, eight, *given), logits(plain, rounded, *given), rtol=0, atol=1e-5
    )


@pytest.mark.numerics
@pytest.mark.parametrize("remat", ["none", "products"])
def test_loss_gradient_and_logits_of_the_kernels_they_stand_for(remat, both):
    config, eight, plain, rounded = both
    (loss, gradient), logits = results(config, eight, remat)
    (wanted_loss, wanted), wanted_logits = results(plain, rounded, remat)
    assert float(loss) == pytest.approx(float(wanted_loss), rel=1e-6)
    tiny.assert_close(gradient, wanted, 1e-5)
    np.testing.assert_allclose(logits, wanted_logits, rtol=0, atol=1e-5)


@pytest.mark.numerics
def test_in_bfloat16_no_farther_from_exact_than_a_bfloat16_kernel(both):
    config, eight, plain, rounded = both
    (_, exact), exact_logits = results(plain, rounded)

    def narrow(config):
        return dataclasses.replace(config, dtype="bfloat16")

    def away(x, y):
        return float(jnp.sqrt(jnp.mean((jnp.asarray(x, "float32") - y) ** 2)))

    (_, wanted), wanted_logits = results(narrow(plain), rounded)
    (_, gradient), logits = results(narrow(config), eight)
    assert 0 < away(logits, exact_logits) < 1.5 * away(wanted_logits, exact_logits)
    for path in gradient:
        assert away(gradient[path], exact[path]) < 2 * away(wanted[path], exact[path]), path


@pytest.mark.numerics
@pytest.mark.parametrize(
    "mesh",
    [
        pytest.param((1, 1, 1), id="one device", marks=pytest.mark.numerics),
        pytest.param((1, 2, 4), id="eight"),
    ],
)
def test_read_from_a_directory(mesh, tmp_path):
    """The same whole numbers over any devices, the rest as narrow as activations; decoding keeps them."""
    model = tiny.make(tmp_path / "wide", WIDE)
    settings = Model(
        path=str(model.directory), adapter=ADAPTER, frozen_dtype="int8", dtype="bfloat16"
    )
    config = read_config(model.directory, **settings.network)
    over = make_mesh(*mesh, devices=jax.devices()[: int(np.prod(mesh))])
    trainable, frozen = starting_params(Run(model=settings), config, over)
    assert len(trainable) == 2 * 7 and all("/lora_" in path for path in trainable)
    for path, array in tiny.flatten(model.params).items():
        found = np.asarray(frozen[path])
        if in_eight_bits(path):
            q, scale = by_hand(array)
            np.testing.assert_array_equal(found, q, err_msg=path)
            np.testing.assert_allclose(frozen[scale_of(path)], scale, rtol=1e-6)
        else:
            np.testing.assert_array_equal(found, array.astype(jnp.bfloat16), err_msg=path)
    assert sum(array.dtype == np.int8 for array in frozen.values()) == 7
    for shapes, arrays in zip(shapes_of(settings, config), (trainable, frozen), strict=True):
        assert {p: (x.shape, x.dtype) for p, x in shapes.items()} == {
            p: (x.shape, x.dtype) for p, x in arrays.items()
        }
    decoding = decoding_mesh(over, mesh[2])
    policy = DecodingPolicy(config, decoding)
    flat = policy.needed({**frozen, **trainable})
    laid_out = traverse_util.flatten_dict(policy(flat), sep="/")
    for path, array in flat.items():
        assert laid_out[path].dtype == (jnp.bfloat16 if "/lora_" in path else array.dtype), path
        lies, decoded = (
            parameter_sharding(place, path, array.shape, table)
            for place, table in ((over, TRAIN_RULES), (decoding, DECODE_RULES))
        )
        assert array.sharding.is_equivalent_to(lies, array.ndim), path
        assert laid_out[path].sharding.is_equivalent_to(decoded, array.ndim), path
    if over.size == 1:
        assert set(policy.changing(flat)) == set(trainable)


def test_rounding_to_int8():
    """To the nearest whole number, the largest to 127 and -127, and nothing of nothing."""
    kernel = np.random.default_rng(0).standard_normal((3, 16, 8)).astype(np.float32)
    kernel[:, :, 0], kernel[1, 5, 1], kernel[2, 3, 2] = 0, 9, -9
    q, scale = jax.device_get(jax.jit(to_int8)(kernel))
    wanted, own = by_hand(kernel)
    np.testing.assert_array_equal(q, wanted)
    np.testing.assert_allclose(scale, own, rtol=1e-6)
    assert (np.abs(q).max(axis=1)[:, 1:] == 127).all() and not q[:, :, 0].any()
    assert (q[1, 5, 1], q[2, 3, 2]) == (127, -127)
    assert (np.abs(q * scale - kernel) <= 0.5001 * scale).all()


def test_a_weight_that_is_not_finite_is_told(tmp_path):
    """Rounded it would be a number like others."""
    model = tiny.make(tmp_path / "wide", WIDE)
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    (file,) = model.directory.glob("*.safetensors")
    tensors = load_file(file)
    tensors[name][0, 3] = np.nan
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"{name} holds NaN or infinity"):
        load_params(model.directory, model.config, dtype="int8")


def test_what_is_in_eight_bits_does_not_learn(one_tiny):
    settings = Model(
        path=str(one_tiny.directory),
        adapter=ADAPTER,
        frozen_dtype="int8",
        trainable=("decoder/layers/q_proj/*",),
    )
    config = read_config(one_tiny.directory, **settings.network)
    with pytest.raises(
        InputError, match="would train decoder/layers/q_proj/kernel.* in eight bits"
    ):
        shapes_of(settings, config)
