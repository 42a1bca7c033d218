import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sari_jax.models import attention
from sari_jax.models.attention import Context, attend, rotary, rotate


def naive(q, keys, values, mask):
    """One query at a time in float64: [B, G, T, H, D] against [B, G, S, K, D]."""
    b, g, t, h, d = q.shape
    repeat = h // keys.shape[-2]
    out = np.zeros((b, g, t, h, d))
    for i in np.ndindex(b, g, t, h):
        scores = keys[i[0], i[1], :, i[3] // repeat] @ q[i] / d**0.5
        scores = np.where(mask[i[0], i[1], i[2]], scores, -np.inf)
        weights = np.exp(scores - scores.max())
        out[i] = (weights / weights.sum()) @ values[i[0], i[1], :, i[3] // repeat]
    return out.reshape(b, g, t, h * d)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (3, 1)])
def test_shared_and_own_keys_are_the_repeated_keys_side_by_side(heads, kv_heads):
    b, g, t, p, d = 2, 3, 4, 5, 8
    draw = np.random.default_rng(0).standard_normal
    q = 3 * draw((b, g, t, heads, d))
    shared_k, shared_v = draw((b, p, kv_heads, d)), draw((b, p, kv_heads, d))
    own_k, own_v = draw((b, g, t, kv_heads, d)), draw((b, g, t, kv_heads, d))
    lengths = np.array([5, 2])
    seen = (np.arange(p) < lengths[:, None])[:, None, None]
    causal = np.tril(np.ones((t, t), bool))[None, None]

    def heads_first(x):
        return jnp.swapaxes(jnp.asarray(x), -2, -3)

    def repeated(x):
        return np.broadcast_to(x[:, None], (b, g, *x.shape[1:]))

    contexts = (
        Context(heads_first(shared_k), heads_first(shared_v), jnp.asarray(lengths)),
        Context(heads_first(own_k), heads_first(own_v), causal=True),
    )
    wanted = naive(
        q,
        np.concatenate([repeated(shared_k), own_k], axis=2),
        np.concatenate([repeated(shared_v), own_v], axis=2),
        np.concatenate(
            [np.broadcast_to(seen, (b, g, t, p)), np.broadcast_to(causal, (b, g, t, t))], axis=-1
        ),
    )
    np.testing.assert_allclose(jax.jit(attend)(q, contexts), wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.numerics
def test_long_prompts_go_in_blocks(monkeypatch):
    """The same values and gradients, also where the blocks do not divide the queries."""
    keys = jax.random.split(jax.random.key(0), 6)
    q = jax.random.normal(keys[0], (2, 3, 23, 4, 8))
    shared = tuple(jax.random.normal(key, (2, 2, 9, 8)) for key in keys[1:3])
    own = tuple(jax.random.normal(key, (2, 3, 2, 23, 8)) for key in keys[3:5])
    weights = jax.random.normal(keys[5], (2, 3, 23, 32))

    def loss(q, shared, own):
        contexts = Context(*shared, jnp.array([7, 9])), Context(*own, causal=True)
        return jnp.sum(weights * attend(q, contexts))

    def found():
        return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(q, shared, own)

    whole = found()
    monkeypatch.setattr(attention, "BLOCK", 24)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found(), whole
    )


def test_gradients_are_those_of_a_plain_softmax():
    q, k, v, weights = jax.random.normal(jax.random.key(1), (4, 1, 1, 3, 2, 4))
    mask = jnp.tril(jnp.ones((3, 3), bool))[None, None]

    def attended(q, k, v):
        k, v = (jnp.swapaxes(x, 2, 3) for x in (k, v))
        return jnp.sum(weights.reshape(1, 1, 3, 8) * attend(q, (Context(k, v, causal=True),)))

    def plain(q, k, v):
        scores = jnp.einsum("bgthd,bgshd->bghts", q, k) / 2
        shares = jax.nn.softmax(jnp.where(mask[:, :, None], scores, -jnp.inf))
        return jnp.sum(weights * jnp.einsum("bghts,bgshd->bgthd", shares, v))

    both = jax.jit(lambda *qkv: [jax.grad(f, (0, 1, 2))(*qkv) for f in (attended, plain)])
    for mine, wanted in zip(*both(q, k, v), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-5)


def test_a_row_with_nothing_to_see_is_finite():
    ones = jnp.ones((1, 1, 2, 1, 4))
    keys = jnp.swapaxes(ones, 2, 3)
    out = jax.jit(attend)(ones, (Context(keys, keys, jnp.zeros(1, jnp.int32)),))
    assert bool(jnp.isfinite(out).all())


def test_rotation_depends_on_distance_alone():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 1, 8))

    @jax.jit
    def score(i, j):
        def at(x, position):
            return rotate(x, rotary(jnp.array([[[position]]]), 8, 100.0))

        return jnp.sum(at(q, i) * at(k, j))

    assert float(score(7, 3)) == pytest.approx(float(score(104, 100)), rel=1e-4)
    assert float(score(7, 3)) != pytest.approx(float(score(8, 3)), rel=1e-4)
