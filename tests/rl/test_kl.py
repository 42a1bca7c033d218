"""What the module says of the estimators, on a small policy whose every token can be counted out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sari_jax.rl.kl import ESTIMATORS, penalised

RNG = np.random.default_rng(0)
LOGITS, REFERENCE = (jnp.array(RNG.standard_normal(7), jnp.float32) for _ in range(2))


def exact(logits, other):
    p, q = jax.nn.log_softmax(logits), jax.nn.log_softmax(other)
    return jnp.sum(jnp.exp(p) * (p - q))


def expected(estimate, logits):
    """Over all tokens, drawn from the policy; the draw itself is not differentiated, as a sample is not."""
    p, q = jax.nn.log_softmax(logits), jax.nn.log_softmax(REFERENCE)
    return jnp.sum(jax.lax.stop_gradient(jnp.exp(p)) * estimate(p - q))


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_unbiased(name):
    found = expected(ESTIMATORS[name], LOGITS)
    assert float(found) == pytest.approx(float(exact(LOGITS, REFERENCE)), rel=1e-5)


@pytest.mark.parametrize("name", ["k2", "k3"])
def test_never_negative(name):
    distance = jnp.linspace(-3, 3, 61)
    assert (ESTIMATORS[name](distance) >= 0).all() and ESTIMATORS[name](jnp.array(0.0)) == 0


def test_as_a_loss_k2_goes_down_the_kl_k3_down_the_other_one_and_k1_nowhere():
    gradient = {
        name: jax.grad(lambda x, k=k: expected(k, x))(LOGITS) for name, k in ESTIMATORS.items()
    }
    np.testing.assert_allclose(gradient["k1"], np.zeros(7), atol=1e-6)
    np.testing.assert_allclose(gradient["k2"], jax.grad(exact)(LOGITS, REFERENCE), atol=1e-6)
    np.testing.assert_allclose(gradient["k3"], jax.grad(exact, 1)(REFERENCE, LOGITS), atol=1e-6)


def test_in_the_reward_k1_goes_down_the_kl():
    def surrogate(logits):
        """Each token as a completion of its own, drawn as often as the policy draws it."""
        logp = jax.nn.log_softmax(logits)
        given = jax.lax.stop_gradient(logp)[:, None, None]
        other = jax.nn.log_softmax(REFERENCE)[:, None, None]
        rewards = penalised(jnp.zeros((7, 1)), given, other, jnp.ones((7, 1, 1), bool), 1.0)
        return jnp.sum(jnp.exp(given[:, 0, 0]) * rewards[:, 0] * logp)

    found = jax.grad(surrogate)(LOGITS)
    np.testing.assert_allclose(found, -jax.grad(exact)(LOGITS, REFERENCE), atol=1e-6)


def test_a_completions_penalty_is_the_sum_over_what_the_mask_shows():
    old = jnp.array([[[-1.0, -2.0, jnp.nan]]])
    reference = jnp.array([[[-1.5, -1.0, jnp.inf]]])
    mask = jnp.array([[[True, True, False]]])
    found = penalised(jnp.array([[3.0]]), old, reference, mask, 0.5)
    assert float(found[0, 0]) == pytest.approx(3.0 - 0.5 * (0.5 - 1.0))
