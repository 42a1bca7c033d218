"""The update that both stages share: what it leaves as it is, and where its results lie."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sari_jax.parallel.mesh import make_mesh, parameter_sharding, put_on_mesh
from sari_jax.train.state import apply_gradient, create_state

PATH = "decoder/layers/q_proj/kernel"
SHAPE = (2, 8, 8)
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1))


def params():
    return {PATH: jnp.linspace(-1.0, 1.0, 128).reshape(SHAPE), "decoder/norm/scale": jnp.ones(8)}


@jax.jit
def update(state, bad):
    def loss(params):
        kernel = params[PATH]
        value = jnp.sum(kernel**2) + jnp.sum(params["decoder/norm/scale"] * kernel)
        # At 1 the loss is not finite; at 2 it is, and its gradient is not.
        value = jnp.where(bad == 1, jnp.inf, value)
        value += jnp.sqrt((kernel - kernel).sum() + jnp.where(bad == 2, 0.0, 1.0))
        return value, {"loss": value}

    return apply_gradient(state, OPTIMIZER, loss)


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("bad", [1, 2])
def test_an_update_that_is_not_finite_changes_the_step_alone(bad):
    state, metrics = update(create_state(params(), OPTIMIZER), 0)
    assert metrics["skipped"] == 0 and metrics["update_norm"] > 0
    after, metrics = update(state, bad)
    assert metrics["skipped"] == 1 and metrics["update_norm"] == 0
    assert after.step == state.step + 1 == 2
    assert bits((after.params, after.opt_state)) == bits((state.params, state.opt_state))
    again, metrics = update(after, 0)
    assert metrics["skipped"] == 0 and bits(again.params) != bits(after.params)
    undisturbed, _ = update(state, 0)
    assert bits((again.params, again.opt_state)) == bits(
        (undisturbed.params, undisturbed.opt_state)
    )


def test_a_state_comes_out_as_it_went_in_over_any_mesh():
    mesh = make_mesh(1, 4, 2)
    placed = {
        path: jax.device_put(array, parameter_sharding(mesh, path, array.shape))
        for path, array in params().items()
    }
    state = put_on_mesh(mesh, create_state(placed, OPTIMIZER))
    lies = jax.tree.map(lambda x: x.sharding, state)
    with jax.set_mesh(mesh):
        for _ in range(2):
            state, _ = update(state, 0)
            assert jax.tree.map(lambda x: x.sharding, state) == lies
