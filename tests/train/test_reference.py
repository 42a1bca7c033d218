"""The reference's dtype and memory; that it is held still, train/test_loop.py shows."""

import jax.numpy as jnp
import numpy as np
import pytest

from sari_jax.parallel.mesh import make_mesh, shard_batch
from sari_jax.train.config import Model
from sari_jax.train.reference import make_reference, on_device


def test_adapters_are_not_in_it():
    policy = {path: jnp.ones((2, 2)) for path in ("a/kernel", "b/lora_a", "b/lora_b")}
    assert set(make_reference(Model(), policy)) == {"a/kernel"}


@pytest.mark.parametrize(("memory", "kind"), [("device", "device"), ("host", "pinned_host")])
@pytest.mark.parametrize("dtype", ["", "bfloat16"])
def test_a_copy_as_the_config_says(memory, kind, dtype):
    policy = {"a/kernel": shard_batch(make_mesh(), np.linspace(0, 1, 16, dtype=np.float32))}
    kept = make_reference(Model(reference_dtype=dtype, reference_memory=memory), policy)
    array = kept["a/kernel"]
    assert array is not policy["a/kernel"] and array.dtype == (dtype or "float32")
    assert array.sharding.memory_kind == kind
    assert array.sharding.spec == policy["a/kernel"].sharding.spec
    here = on_device(kept)["a/kernel"]
    assert here.sharding.memory_kind == "device"
    np.testing.assert_array_equal(here, policy["a/kernel"].astype(array.dtype))
    assert jnp.issubdtype(here.dtype, jnp.floating)
