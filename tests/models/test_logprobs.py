import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sari_jax.models.logprobs import chunked_logprobs


def direct(hidden, head, targets, temperature):
    logits = hidden @ head.T / temperature
    logs = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(logs, targets[..., None], axis=-1)[..., 0]
    return chosen, -jnp.sum(jnp.exp(logs) * logs, axis=-1)


@pytest.mark.parametrize(("chunk", "temperature"), [(4, 0.7), (5, 1.0), (100, 0.7)])
def test_values_and_gradients_are_those_of_the_whole_array(chunk, temperature):
    keys = jax.random.split(jax.random.key(0), 3)
    hidden, head = jax.random.normal(keys[0], (2, 3, 2, 8)), jax.random.normal(keys[1], (17, 8))
    targets = jax.random.randint(keys[2], (2, 3, 2), 0, 17)

    def found(f):
        """Values, and gradients that both values have a part in."""

        def total(hidden, head):
            chosen, entropy = f(hidden, head)
            return jnp.sum(chosen * targets) + jnp.sum(entropy**2), (chosen, entropy)

        return jax.jit(jax.grad(total, (0, 1), has_aux=True))(hidden, head)

    ours, values = found(
        lambda h, w: chunked_logprobs(h, w, targets, temperature=temperature, chunk=chunk)
    )
    theirs, expected = found(lambda h, w: direct(h, w, targets, temperature))
    for mine, wanted in zip(values, expected, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-5, atol=1e-6)
    for mine, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-4)


def test_no_array_of_tokens_by_vocabulary_is_kept():
    tokens, vocabulary, width = 4096, 3000, 8
    hidden, head = jnp.zeros((2, tokens // 2, width)), jnp.zeros((vocabulary, width))
    targets = jnp.zeros((2, tokens // 2), jnp.int32)

    def loss(hidden, head):
        return chunked_logprobs(hidden, head, targets, chunk=128)[0].sum()

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(hidden, head).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.5 * 4 * tokens * vocabulary
