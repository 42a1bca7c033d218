import jax.numpy as jnp
import numpy as np
import pytest

from sari_jax.rl.aggregation import AGGREGATIONS

LENGTHS = np.array([[4, 1], [2, 0]])  # the last one pads the batch
MASK = jnp.array(np.arange(5) < LENGTHS[..., None])
# Of a token in each completion: 3 completions, 7 tokens, 5 places.
OF_A_TOKEN = {
    "sequence_mean": [[1 / 12, 1 / 3], [1 / 6, 0]],
    "token_mean": [[1 / 7, 1 / 7], [1 / 7, 0]],
    "constant_length": [[1 / 15, 1 / 15], [1 / 15, 0]],
    "sequence_sum": [[1 / 3, 1 / 3], [1 / 3, 0]],
}


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_what_a_token_weighs(name):
    found = AGGREGATIONS[name](MASK, jnp.array(3), jnp.array(7))
    np.testing.assert_allclose(found, MASK * np.array(OF_A_TOKEN[name])[..., None], rtol=1e-6)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_nothing_at_all(name):
    zero = jnp.array(0)
    assert not np.asarray(AGGREGATIONS[name](jnp.zeros_like(MASK), zero, zero)).any()
