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


@pytest.mark.parametrize("chunk", [4, 5, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_are_those_of_the_whole_array(chunk, temperature):
    keys = jax.random.split(jax.random.key(0), 3)
    hidden, head = jax.random.normal(keys[0], (2, 3, 2, 8)), jax.random.normal(keys[1], (17, 8))
    targets = jax.random.randint(keys[2], (2, 3, 2), 0, 17)
    ours = jax.jit(
        lambda h, w: chunked_logprobs(h, w, targets, temperature=temperature, chunk=chunk)
    )
    theirs = jax.jit(lambda h, w: direct(h, w, targets, temperature))
    for mine, wanted in zip(ours(hidden, head), theirs(hidden, head), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-5, atol=1e-6)

    def total(f):
        return lambda h, w: jnp.sum(f(h, w)[0] * targets) + jnp.sum(f(h, w)[1] ** 2)

    for mine, wanted in zip(
        jax.grad(total(ours), (0, 1))(hidden, head),
        jax.grad(total(theirs), (0, 1))(hidden, head),
        strict=True,
    ):
        np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-4)


def test_no_array_of_tokens_by_vocabulary_is_kept():
    tokens, vocabulary, width = 4096, 3000, 8
    hidden, head = jnp.zeros((2, tokens // 2, width)), jnp.zeros((vocabulary, width))
    targets = jnp.zeros((2, tokens // 2), jnp.int32)
    loss = lambda h, w: chunked_logprobs(h, w, targets, chunk=128)[0].sum()  # noqa: E731
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(hidden, head).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.5 * 4 * tokens * vocabulary
