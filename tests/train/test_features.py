"""The tower's output kept between epochs. That a resumed run does not depend on it is tested by train/test_loop.py."""

import numpy as np
import pytest
import tiny

from sari_jax.data.processor import Batch
from sari_jax.hf.load import load_params
from sari_jax.parallel.mesh import make_mesh, shard_batch
from sari_jax.train import features
from sari_jax.train.features import TowerFeatures

MESH = make_mesh(data=8, fsdp=1)


def batch(numbers, clips):
    prompts = tiny.prompts([tiny.question([0.3 + 0.02 * n], 5, n) for n in numbers], clips=clips)
    host = type(prompts)(*(np.asarray(array) for array in vars(prompts).values()))
    return Batch(prompts=host, indices=np.array(numbers, np.int32), records=())


@pytest.fixture
def tower(one_tiny, monkeypatch):
    """A function from numbers and clips per prompt to features; `ran` counts the tower's passes."""
    encode, ran = features.encode, []
    monkeypatch.setattr(features, "encode", lambda *args: (ran.append(1), encode(*args))[1])
    params = load_params(one_tiny.directory, one_tiny.config, mesh=MESH)
    kept = {gb: TowerFeatures(one_tiny.config, MESH, gb) for gb in (1.0, 0.0)}

    def run(numbers, clips=1, gb=1.0):
        rows = batch(numbers, clips)
        return np.asarray(kept[gb](params, rows, shard_batch(MESH, rows.prompts)))

    run.ran = ran
    return run


def test_a_second_epoch_in_another_order_runs_no_tower_and_gives_the_same(tower):
    first = tower(range(8))
    order = [3, 1, 0, 2, 7, 6, 5, 4]
    np.testing.assert_array_equal(tower(order), first[order])
    assert len(tower.ran) == 1


def test_prompts_that_were_kept_with_another_number_of_slots(tower):
    assert tower(range(8), clips=1).shape[1] == 1
    assert tower(range(8, 16), clips=2).shape[1] == 2
    mixed = [*range(4), *range(8, 12)]
    np.testing.assert_array_equal(tower(mixed, clips=2), tower(mixed, clips=2, gb=0.0))


def test_without_room_nothing_is_kept(tower):
    tower(range(8), gb=0.0)
    tower(range(8), gb=0.0)
    assert len(tower.ran) == 2
