import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sari_jax.rl.advantages import (
    ADVANTAGES,
    centred_advantages,
    group_advantages,
    leave_one_out_advantages,
    zero_spread,
)


def test_against_numpy():
    rewards = np.random.default_rng(0).integers(0, 3, (16, 8)).astype(np.float32)
    expected = (rewards - rewards.mean(1, keepdims=True)) / (
        rewards.std(1, ddof=1, keepdims=True) + 1e-4
    )
    np.testing.assert_allclose(group_advantages(jnp.array(rewards)), expected, atol=1e-6)


def test_by_hand():
    # Mean 0.5; unbiased deviation sqrt(4 * 0.25 / 3) = 0.57735.
    advantages = group_advantages(jnp.array([[1.0, 0.0, 0.0, 1.0]]))
    np.testing.assert_allclose(
        advantages, np.array([[1, -1, -1, 1]]) * 0.5 / (0.5773503 + 1e-4), rtol=1e-6
    )


def test_without_the_deviation():
    rewards = jnp.array([[1.0, 0.0, 0.0, 1.0], [3.0, 0.0, 0.0, 0.0]])
    expected = [[0.5, -0.5, -0.5, 0.5], [2.25, -0.75, -0.75, -0.75]]
    np.testing.assert_array_equal(centred_advantages(rewards), expected)


def test_less_the_mean_of_the_others():
    rewards = np.random.default_rng(1).integers(0, 3, (16, 5)).astype(np.float32)
    others = [
        [np.delete(row, place).mean(dtype=np.float64) for place in range(5)] for row in rewards
    ]
    found = leave_one_out_advantages(jnp.array(rewards))
    np.testing.assert_allclose(found, rewards - others, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ADVANTAGES.values(), ids=list(ADVANTAGES))
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("size", [2, 3, 8])
def test_equal_rewards_give_exactly_zero(size, dtype, kind):
    values = jnp.array([0.0, 0.1, 0.7, 1 / 3, 1e-8, 1e8, -2.3], dtype)
    rewards = jnp.tile(values[:, None], size)
    advantages = jax.jit(kind)(rewards)
    assert advantages.dtype == dtype
    np.testing.assert_array_equal(advantages, np.zeros((7, size)))
    assert zero_spread(rewards).all()


def test_zero_spread_is_per_group():
    rewards = jnp.array([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.1, 0.1, 0.1], [0.1, 0.1, 0.1000001]])
    np.testing.assert_array_equal(zero_spread(rewards), [True, False, True, False])
    advantages = np.asarray(group_advantages(rewards))
    assert not advantages[[0, 2]].any()
    assert advantages[1].all()


@pytest.mark.parametrize("kind", ADVANTAGES.values(), ids=list(ADVANTAGES))
def test_a_group_of_one_teaches_nothing(kind):
    np.testing.assert_array_equal(kind(jnp.array([[1.0], [0.0]])), [[0.0], [0.0]])


def test_shapes_are_checked():
    with pytest.raises(Exception, match="rewards"):
        group_advantages(jnp.zeros(3))
