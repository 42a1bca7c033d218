"""Adapters: as peft computes and starts them, whatever they stand on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import traverse_util

from sari_jax.errors import InputError
from sari_jax.models.audio_lm import abstract_params, bind
from sari_jax.models.config import Adapter, AudioLMConfig, DecoderConfig, EncoderConfig
from sari_jax.models.lora import (
    init_adapter,
    is_adapter,
    with_dropout,
    with_noise,
    without_adapter,
)
from sari_jax.parallel.mesh import make_mesh, parameter_shardings
from sari_jax.sft.loss import sft_loss
from sari_jax.train.optimizer import merge, partition

EVERYWHERE = Adapter(3, alpha=5.0, targets=("*_proj", "projector"))
QUESTIONS = [tiny.question([0.51], 9, 1), tiny.question([0.33, 0.9137], 14, 2)]
ANSWERS = tiny.answers((5, 8), 4)
KEY = jax.random.key(7)


def loss_of(config, features=None):
    """Of the adapters alone, as a step has it."""
    prompts = tiny.prompts(QUESTIONS)
    ids, mask = (jnp.array(x)[:, None] for x in tiny.padded(ANSWERS, 8))

    def loss(factors, frozen, key):
        params = with_noise(config, merge(factors, frozen), key)
        return sft_loss(bind(config, params), prompts, ids, mask, features)[0]

    return loss


@functools.partial(jax.jit, static_argnums=0)
def logits(config, params, prompts):
    return bind(config, params).prompt_logits(prompts)


def by_torch(theirs, model):
    network = theirs.adapted(model)
    loss = network(**theirs.inputs(model.sizes, QUESTIONS, ANSWERS)).loss
    return {"loss": loss.detach(), **theirs.adapter_gradients(model, network, loss)}


@pytest.mark.parametrize(
    ("name", "rslora"), [("multi_head_80", False), ("omni", True), ("omni_thinker_tied", False)]
)
@pytest.mark.numerics
def test_loss_and_gradient_as_peft(name, rslora, tmp_path, recorded):
    model = tiny.make(tmp_path / name, tiny.SIZES[name])
    model = tiny.adapted(model, dataclasses.replace(EVERYWHERE, rslora=rslora))
    factors, frozen = partition(model.params, ("*/lora_[ab]",))
    assert len(factors) == 2 * (7 + 6 + 1)  # decoder, tower, projector
    loss, gradient = jax.jit(jax.value_and_grad(loss_of(model.config)))(factors, frozen, KEY)
    found = {"loss": loss, **jax.device_get(gradient)}
    for ours, wanted in recorded(found, lambda theirs: by_torch(theirs, model)):
        assert float(ours.pop("loss")) == pytest.approx(float(wanted.pop("loss")), rel=1e-5)
        tiny.assert_close(ours, wanted, 1e-5)


@pytest.mark.numerics
def test_an_adapter_begins_as_peft_begins_it_and_changes_nothing(one_tiny):
    """A uniform within 1 / sqrt(inputs), B zero; other targets leave these as they are."""
    config = dataclasses.replace(one_tiny.config, adapter=EVERYWHERE)
    shapes = traverse_util.flatten_dict(abstract_params(config), sep="/")
    factors = jax.device_get(init_adapter(shapes, seed=3))
    assert set(factors) == {path for path in shapes if is_adapter(path)}
    for path, array in factors.items():
        assert array.shape == shapes[path].shape and array.dtype == jnp.float32
        if path.endswith("lora_b"):
            assert not array.any()
        else:
            bound = array.shape[-2] ** -0.5
            assert 0.8 * bound < np.abs(array).max() <= bound
            assert np.abs(array).mean() == pytest.approx(bound / 2, rel=0.25)
            if array.ndim == 3:
                assert (array[0] != array[1]).all()
    whole = {**traverse_util.flatten_dict(one_tiny.params, sep="/"), **factors}
    prompts = tiny.prompts(QUESTIONS)
    given = (config, merge(whole, {}), prompts), (one_tiny.config, one_tiny.params, prompts)
    with jax.disable_jit():
        np.testing.assert_array_equal(*(logits(*one) for one in given))
    # As users' programs are compiled: without XLA's default emitters, which tests/conftest.py leaves out, the sums of
    # two programs may be in another order.
    options = {"xla_cpu_use_fusion_emitters": True}
    compiled = jax.jit(logits.__wrapped__, static_argnums=0, compiler_options=options)
    np.testing.assert_array_equal(*(compiled(*one) for one in given))
    fewer = Adapter(3, targets=("decoder/layers/q_proj",))
    config = dataclasses.replace(one_tiny.config, adapter=fewer)
    shapes = traverse_util.flatten_dict(abstract_params(config), sep="/")
    path = "decoder/layers/q_proj/lora_a"
    np.testing.assert_array_equal(init_adapter(shapes, seed=3)[path], factors[path])
    assert (init_adapter(shapes, seed=4)[path] != factors[path]).all()


def test_the_same_over_eight_devices_and_split_as_the_kernels():
    sizes = dict(heads=8, width=32, ffn=48, layers=2)
    config = AudioLMConfig(
        EncoderConfig(mel_bins=80, **sizes | {"heads": 4}),
        DecoderConfig(vocabulary=208, kv_heads=8, head_dim=4, **sizes),
        audio_token_id=tiny.AUDIO_ID,
        adapter=EVERYWHERE,
    )
    shapes = traverse_util.flatten_dict(abstract_params(config), sep="/")
    alone, mesh = init_adapter(shapes, seed=3), make_mesh(1, 2, 4)
    split = init_adapter(shapes, seed=3, shardings=parameter_shardings(mesh, shapes))
    for path, array in split.items():
        np.testing.assert_array_equal(array, alone[path], err_msg=path)
    specs = {path: tuple(array.sharding.spec) for path, array in split.items()}
    embed, inner = ("fsdp", "tensor"), ("tensor", "fsdp")
    assert specs["decoder/layers/q_proj/lora_a"] == (None, embed, None)
    assert specs["decoder/layers/q_proj/lora_b"] == (None, None, inner)
    assert specs["tower/layers/down_proj/lora_a"] == (None, inner, None)
    assert specs["tower/layers/down_proj/lora_b"] == (None, None, embed)
    assert specs["projector/lora_b"] == (None, embed)


@pytest.mark.numerics
def test_switched_off_it_is_the_model_as_it_was(one_tiny):
    """Without the adapters among the parameters: no second copy is needed."""
    model = tiny.adapted(one_tiny, EVERYWHERE)
    config, prompts = without_adapter(model.config), tiny.prompts(QUESTIONS)
    _, frozen = partition(model.params, ("*/lora_[ab]",))
    before = logits(one_tiny.config, one_tiny.params, prompts)
    np.testing.assert_array_equal(logits(config, merge({}, frozen), prompts), before)
    assert jnp.abs(logits(model.config, model.params, prompts) - before).max() > 0.1


@pytest.mark.numerics
def test_dropout_by_its_key_alone(one_tiny):
    model = tiny.adapted(one_tiny, Adapter(3, targets=("decoder/layers/o_proj", "projector")))
    factors, frozen = partition(model.params, ("*/lora_[ab]",))
    noise = np.random.default_rng(0).standard_normal((2, 2, 25, one_tiny.sizes.tower_width))
    features = jnp.asarray(noise, jnp.float32)
    dropping = jax.jit(loss_of(with_dropout(model.config, 0.3), features))
    keys = jax.random.split(KEY, 8)
    losses = [float(dropping(factors, frozen, key)) for key in keys]
    assert dropping(factors, frozen, keys[0]) == losses[0] and len(set(losses)) == 8
    # What enters an adapter is dropped, and nothing else.
    nothing = {path: jnp.zeros_like(x) if path.endswith("b") else x for path, x in factors.items()}
    without = float(jax.jit(loss_of(model.config, features))(nothing, frozen, KEY))
    assert float(dropping(nothing, frozen, KEY)) == pytest.approx(without, abs=1e-6)


def test_each_call_of_a_layer_drops_anew():
    """A layer reads a prompt and its completions one after the other."""
    from flax import nnx

    from sari_jax.models.layers import linear

    layer = linear(64, 64, bias=False, dtype="float32", rngs=nnx.Rngs(0))
    layer.scale, layer.dropout = 1.0, 0.25
    layer.lora_a, layer.lora_b = nnx.Param(jnp.eye(64)), nnx.Param(jnp.eye(64))
    layer.noise = nnx.Variable(KEY)
    x = jnp.ones((200, 64))
    heard = [layer(x) - x @ layer.kernel[...] for _ in range(2)]
    for y in heard:
        zero = jnp.abs(y) < 1e-4
        np.testing.assert_allclose(jnp.where(zero, 4 / 3, y), 4 / 3, rtol=1e-4)
        assert zero.mean() == pytest.approx(0.25, abs=0.02)
    assert (jnp.abs(heard[0] - heard[1]) > 0.5).mean() == pytest.approx(2 * 0.25 * 0.75, abs=0.02)


def test_a_pattern_that_matches_nothing_is_told(one_tiny):
    wrong = dataclasses.replace(
        one_tiny.config, adapter=Adapter(2, targets=("projector", "decoder/q_proj"))
    )
    told = "model.adapter.targets pattern 'decoder/q_proj' matches no projection; there are decoder/layers/down_proj, "
    with pytest.raises(InputError, match=told):
        abstract_params(wrong)
