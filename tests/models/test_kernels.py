"""The libraries' kernels against our own attention; splash interpreted, as there is no TPU."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from sari_jax.errors import InputError
from sari_jax.models.attention import Context, attend
from sari_jax.models.audio_lm import bind
from sari_jax.models.kernels import ATTENTION, cudnn_attend, require, splash_attend
from sari_jax.parallel.mesh import make_mesh

INTERPRETED = functools.partial(splash_attend, interpret=True)


def close(found, wanted):
    scale = float(jnp.abs(wanted).max())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * scale)


@functools.cache
def group():
    """Eight prompts of ragged prefixes with three completions each; two queries per key head, no whole lanes."""
    b, g, t, p, h, kv, d = 8, 3, 51, 90, 4, 2, 24
    keys = jax.random.split(jax.random.key(0), 6)
    q, weights = (jax.random.normal(key, (b, g, t, h, d)) for key in keys[:2])
    shared = tuple(jax.random.normal(key, (b, kv, p, d)) for key in keys[2:4])
    own = tuple(jax.random.normal(key, (b, g, kv, t, d)) for key in keys[4:])
    return q, shared, own, weights.reshape(b, g, t, h * d)


def values_and_gradients(attention):
    q, shared, own, weights = group()

    def loss(q, shared, own):
        lengths = jnp.array([90, 1, 17, 64, 89, 33, 80, 5])
        out = attention(q, (Context(*shared, lengths), Context(*own, causal=True)))
        return jnp.sum(weights * out), out

    gradients, out = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(q, shared, own)
    return out, gradients


@pytest.fixture(scope="module")
def wanted():
    return values_and_gradients(attend)


@pytest.mark.parametrize(
    "attention",
    [
        pytest.param(INTERPRETED, id="splash", marks=pytest.mark.numerics),
        pytest.param(functools.partial(cudnn_attend, implementation="xla"), id="cudnn"),
    ],
)
def test_a_group_by_a_kernel(attention, wanted, monkeypatch):
    """cuDNN's masks are tried on JAX's own implementation, as its kernel needs a GPU; its gradient, even sizes."""
    plain = jax.nn.dot_product_attention

    def even(q, keys, values, **how):
        assert q.shape[1] % 2 == keys.shape[1] % 2 == values.shape[1] % 2 == 0
        return plain(q, keys, values, **how)

    monkeypatch.setattr(jax.nn, "dot_product_attention", even)
    jax.tree.map(close, values_and_gradients(attention), wanted)


@pytest.mark.numerics
def test_each_device_runs_the_kernel_on_its_rows_and_heads(wanted):
    with jax.set_mesh(make_mesh(2, 2, 2)):
        jax.tree.map(close, values_and_gradients(INTERPRETED), wanted)


@pytest.mark.numerics
def test_the_whole_network_by_a_kernel(one_tiny, monkeypatch):
    """Tower, prefix and completions; clips that are not there stay finite."""
    monkeypatch.setitem(ATTENTION, "splash", INTERPRETED)
    prompts = tiny.prompts(tiny.ragged())
    ids = jnp.array(tiny.padded(tiny.answers([4, 7, 2]), 8)[0])[:, None]
    kernels = dataclasses.replace(one_tiny.config, attention="splash")
    ours, theirs = (
        jax.jit(lambda params, c=config: bind(c, params).hidden(prompts, ids))(one_tiny.params)
        for config in (one_tiny.config, kernels)
    )
    close(theirs, ours)


@pytest.mark.parametrize(
    ("name", "dtype", "platform", "told"),
    [
        ("flash", "bfloat16", "tpu", "'flash' is unknown; choose xla, splash, cudnn"),
        ("splash", "bfloat16", "cpu", "'splash' needs a tpu and this is a cpu"),
        ("cudnn", "bfloat16", None, "'cudnn' needs a gpu and this is a cpu"),
        ("cudnn", "float32", "gpu", "'cudnn' takes bfloat16 and not float32"),
        (
            "splash",
            "bfloat16",
            "tpu",
            "q_proj: heads = 3 do not divide by mesh.tensor = 8; choose of .1.",
        ),
    ],
)
def test_a_back_end_that_cannot_run_is_refused(name, dtype, platform, told, one_tiny):
    config = dataclasses.replace(one_tiny.config, attention=name, dtype=dtype)
    with pytest.raises(InputError, match=told):
        require(config, num_shards=8, platform=platform)


def test_those_that_can(one_tiny):
    for name, platform in (("xla", "cpu"), ("splash", "tpu"), ("cudnn", "gpu")):
        config = dataclasses.replace(one_tiny.config, attention=name, dtype="bfloat16")
        require(config, platform=platform)
