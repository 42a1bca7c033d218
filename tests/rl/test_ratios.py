import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sari_jax.rl.ratios import RATIOS, sequence_ratios, token_ratios, truncated_importance

NEW = jnp.log(jnp.array([[[0.5, 0.2, 0.9], [0.4, 0.1, 0.0]]]))
OLD = jnp.log(jnp.array([[[0.25, 0.4, 0.9], [0.1, 0.7, 0.0]]]))
MASK = jnp.array([[[True, True, True], [True, False, False]]])


def test_token_by_token():
    np.testing.assert_allclose(token_ratios(NEW, OLD, MASK), [[[2, 0.5, 1], [4, 1, 1]]], rtol=1e-6)


def test_a_whole_completions_is_the_geometric_mean_of_its_tokens():
    ratios = sequence_ratios(NEW, OLD, MASK)
    np.testing.assert_allclose(ratios, [[[1, 1, 1], [4, 1, 1]]], rtol=1e-6)
    half = sequence_ratios(NEW, OLD, MASK.at[0, 0, 1].set(False))[0, 0]
    np.testing.assert_allclose(half, [np.sqrt(2), 1, np.sqrt(2)], rtol=1e-6)


@pytest.mark.parametrize("name", RATIOS)
def test_the_policy_itself_has_a_ratio_of_exactly_one_and_feels_the_gradient(name):
    ratio = RATIOS[name]
    assert (ratio(NEW, NEW, MASK) == 1).all()
    gradient = jax.grad(lambda x: ratio(x, NEW, MASK)[0, 0].sum())(NEW)
    np.testing.assert_allclose(gradient, [[[1, 1, 1], [0, 0, 0]]], rtol=1e-6)


def test_importance_is_truncated_and_a_constant():
    weights = truncated_importance(NEW, OLD, MASK, 1.5)
    np.testing.assert_allclose(weights, [[[1.5, 0.5, 1], [1.5, 1, 1]]], rtol=1e-6)
    gradient = jax.grad(lambda x: truncated_importance(x, OLD, MASK, 1.5).sum())(NEW)
    assert not np.asarray(gradient).any()
