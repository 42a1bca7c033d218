import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sari_jax.errors import InputError
from sari_jax.generate.sampling import Sampler, restrict, sample

RNG = np.random.default_rng(0)
LOGITS = (2 * RNG.standard_normal((6, 40))).astype(np.float32)


def sampler(**settings):
    return Sampler(**(dict(num_completions=1, max_tokens=1, end_ids=(), pad_id=0) | settings))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def kept_by_hand(logits, top_k, top_p):
    """Which tokens of one row stay: in descending order, the first k, and of these until p is reached."""
    order = np.argsort(-logits)[: top_k or len(logits)]
    probabilities, total, kept = softmax(logits[order].astype(np.float64)), 0.0, []
    for token, probability in zip(order, probabilities, strict=True):
        if total >= top_p:
            break
        kept.append(int(token))
        total += probability
    return set(kept)


@pytest.mark.parametrize("top_k", [0, 1, 5, 39, 40, 100])
def test_restrict_by_hand(top_k):
    for top_p in (1e-6, 0.3, 0.9, 0.999, 1.0):
        found = np.asarray(restrict(jnp.array(LOGITS), top_k, top_p))
        for row, logits in zip(found, LOGITS, strict=True):
            kept = set(np.flatnonzero(np.isfinite(row)).tolist())
            assert kept == kept_by_hand(logits, top_k, top_p), top_p
            assert (row[list(kept)] == logits[list(kept)]).all()
            assert int(logits.argmax()) in kept


def test_restrict_keeps_equals_at_the_border():
    logits = jnp.array([[3.0, 1.0, 1.0, 0.0]])
    assert np.isfinite(restrict(logits, 2, 1.0)).tolist() == [[True, True, True, False]]
    assert np.isfinite(restrict(logits, 0, 0.85)).tolist() == [[True, True, True, False]]


def test_greedy_is_the_likeliest_with_its_logprob():
    tokens, logprobs = sample(
        sampler(temperature=0), jnp.array(LOGITS), jax.random.split(jax.random.key(0), 6)
    )
    assert tokens.tolist() == LOGITS.argmax(axis=1).tolist() and tokens.dtype == jnp.int32
    np.testing.assert_allclose(logprobs, np.log(softmax(LOGITS).max(axis=1)), atol=1e-6)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(0.5, 0, 1.0), (1.3, 12, 0.8)],
)
def test_how_often_each_token_comes(temperature, top_k, top_p):
    """20,000 draws with one key: each frequency within five standard deviations of its probability."""
    count, logits = 20_000, LOGITS[0]
    kept = sorted(kept_by_hand(logits / temperature, top_k, top_p))
    expected = np.zeros(40)
    expected[kept] = softmax(logits[kept].astype(np.float64) / temperature)
    settings = sampler(temperature=temperature, top_k=top_k, top_p=top_p)
    keys = jax.random.split(jax.random.key(3), count)
    tokens, logprobs = jax.jit(sample, static_argnums=0)(
        settings, jnp.tile(logits, (count, 1)), keys
    )
    found = np.bincount(tokens, minlength=40) / count
    deviation = np.sqrt(expected * (1 - expected) / count)
    assert (np.abs(found - expected) <= 5 * deviation).all()
    whole = np.log(softmax(logits.astype(np.float64) / temperature))  # before top-k and top-p
    np.testing.assert_allclose(logprobs, whole[np.asarray(tokens)], atol=1e-5)


def test_each_row_has_a_key_of_its_own():
    keys = jax.random.split(jax.random.key(0), 6)
    tokens, _ = sample(sampler(), jnp.array(LOGITS), keys)
    turned, _ = sample(sampler(), jnp.array(LOGITS[::-1]), keys[::-1])
    np.testing.assert_array_equal(tokens, turned[::-1])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (dict(num_completions=0), "num_completions = 0: must be at least 1"),
        (dict(max_tokens=0), "max_tokens = 0: must be at least 1"),
        (dict(temperature=-0.1), "temperature = -0.1: must be 0 or more"),
        (dict(top_k=-1), "top_k = -1: must be 0"),
        (dict(top_p=0.0), "top_p = 0.0: must be above 0"),
        (dict(top_p=1.1), "top_p = 1.1: must be above 0"),
    ],
)
def test_settings_out_of_range(settings, told):
    with pytest.raises(InputError, match=told):
        sampler(**settings)


def test_equal_settings_are_one_program():
    assert hash(sampler(top_k=3)) == hash(sampler(top_k=3)) and sampler(top_k=3) != sampler(top_k=4)
