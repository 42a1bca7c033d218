import jax.numpy as jnp
import numpy as np
import pytest

from sari_jax.errors import InputError
from sari_jax.train.config import Optimizer
from sari_jax.train.optimizer import make_optimizer, make_schedule, merge, partition

PARAMS = {
    "tower": {"kernel": jnp.ones((2, 2))},
    "decoder": {"norm": {"scale": jnp.ones(2)}, "proj": {"kernel": jnp.ones((2, 2))}},
}


def test_partition_and_merge_are_inverse():
    trainable, frozen = partition(PARAMS, ("decoder/*",))
    assert set(trainable) == {"decoder/norm/scale", "decoder/proj/kernel"}
    assert set(frozen) == {"tower/kernel"}
    assert merge(trainable, frozen) == PARAMS


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(InputError, match="'projector/\\*' matches no parameter"):
        partition(PARAMS, ("projector/*",))


def test_schedules():
    constant = make_schedule(Optimizer(learning_rate=1.0, warmup_steps=4), 10)
    assert [float(constant(i)) for i in (0, 2, 4, 9)] == [0.0, 0.5, 1.0, 1.0]
    cosine = make_schedule(Optimizer(learning_rate=1.0, schedule="cosine"), 10)
    np.testing.assert_allclose(cosine(10), 0.1, rtol=1e-5)


def test_norms_are_not_decayed():
    trainable, _ = partition(PARAMS, ("decoder/*",))
    optimizer = make_optimizer(Optimizer(learning_rate=1.0, weight_decay=0.5), 10)
    zero = {path: jnp.zeros_like(array) for path, array in trainable.items()}
    state = optimizer.init(trainable)
    _, state = optimizer.update(zero, state, trainable)  # the first step has rate 0
    updates, _ = optimizer.update(zero, state, trainable)
    assert float(jnp.abs(updates["decoder/norm/scale"]).max()) == 0
    np.testing.assert_allclose(updates["decoder/proj/kernel"], -0.5)
