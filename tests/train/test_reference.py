"""The reference's dtype and memory; that it is held still, train/test_loop.py shows."""

import jax.numpy as jnp
import numpy as np
import pytest
from runs import STEPS, command, finish, rows

from sari_jax.parallel.mesh import make_mesh, shard_batch
from sari_jax.train.config import Model
from sari_jax.train.reference import is_reference, make_reference, on_device


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


def test_a_policy_is_the_reference_while_nothing_has_moved_it():
    policy = {"a/kernel": jnp.array([0.5, 0.1]), "a/lora_a": jnp.ones((2, 2))}
    policy["a/lora_b"] = jnp.zeros((2, 2))
    kept = make_reference(Model(), policy)
    assert is_reference(kept, policy)
    assert is_reference(kept, policy | {"a/lora_a": 2 * policy["a/lora_a"]})  # B hides it
    for path in ("a/kernel", "a/lora_b"):
        assert not is_reference(kept, policy | {path: policy[path].at[1].add(1e-7)})
    # 0.1 is no number of bfloat16: such a reference is another network.
    narrow = make_reference(Model(reference_dtype="bfloat16"), policy)
    assert not is_reference(narrow, policy)
    assert is_reference(narrow, policy | {"a/kernel": narrow["a/kernel"].astype("float32")})


@pytest.mark.runs
@pytest.mark.parametrize(("dtype", "kept"), [("bfloat16", ""), ("float32", "bfloat16")])
def test_a_run_whose_rewards_never_differ_stays_where_it_is(
    dtype, kept, small_model, scored, tmp_path
):
    """Answers of one token are all wrong. A narrower reference is another network, to which the policy is drawn."""
    changes = {
        "grpo.rewards": "('accuracy=1', 'format=1')",
        "grpo.reward_file": "",
        "grpo.max_tokens": 1,
        "grpo.kl_coefficient": 0.04,
        "micro_batches": 2,
        "model.dtype": dtype,
        "model.reference_dtype": kept,
        "optimizer.name": "adamw",
    }
    overrides = [f"--config.{key}={value}" for key, value in changes.items()]
    done = finish(command("grpo", small_model, scored, tmp_path / "run", *overrides))
    assert done.returncode == 0, done.stderr[-2000:]
    found = rows(tmp_path / "run")
    assert len(found) == STEPS and all(row["zero_spread"] == 1 for row in found)
    for row in found:
        if kept:
            assert row["kl"] > 0 and row["gradient_norm"] > 0
        else:
            assert row["kl"] == row["gradient_norm"] == row["update_norm"] == 0
