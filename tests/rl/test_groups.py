import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from sari_jax.data.processor import Batch
from sari_jax.parallel.mesh import make_mesh, shard_batch
from sari_jax.rl.groups import refill, take, widened


@pytest.mark.parametrize(
    ("flat", "fresh", "expected"),
    [
        ([0, 1, 1], [1, 0, 1], [0, 4, 2]),  # one is left over
        ([0, 1, 1], [0, 0, 0], [0, 3, 4]),  # the first of those that say something
        ([1, 1, 1], [1, 1, 1], [0, 1, 2]),
        ([1, 1, 1], [0, 0, 0], [3, 4, 5]),
        ([0, 0, 0], [0, 0, 0], [0, 1, 2]),
        ([1, 0, 0], [1, 1, 0], [5, 1, 2]),
    ],
)
def test_which_groups_to_go_on_with(flat, fresh, expected):
    assert refill(np.array(flat, bool), np.array(fresh, bool)).tolist() == expected


def test_as_many_tries_as_it_takes():
    """Until none is left, each place is filled once, in the order in which the groups were drawn."""
    rng, filled = np.random.default_rng(0), []
    flat = np.ones(8, bool)
    for count in range(1, 50):
        if not flat.any():
            break
        fresh = rng.random(8) < 0.7
        places = refill(flat, fresh)
        filled += [8 * count + place - 8 for place in places if place >= 8]
        flat = np.concatenate([flat, fresh])[places]
    assert not flat.any() and len(filled) == 8 and filled == sorted(filled)


# More clips in the one, longer clips and prompts in the other.
SMALL = [tiny.question([0.3, 0.2], 5, 1), tiny.question([0.2], 9, 2)]
LARGE = [tiny.question([0.9], 12, 3), tiny.question([0.4], 14, 4)]


def host(questions) -> Batch:
    prompts = jax.device_get(
        tiny.prompts(questions, samples=16_000 if questions is LARGE else 6400)
    )
    return Batch(prompts=prompts, indices=np.arange(len(questions)), records=(), pad_id=7)


def test_widened_on_the_device_as_on_the_host():
    small, large = host(SMALL), host(LARGE)
    sizes = [max(pair) for pair in zip(small.sizes, large.sizes, strict=True)]
    assert tuple(sizes) not in (small.sizes, large.sizes)
    for mine, other in ((small, large), (large, small)):
        found = widened(*(jax.tree.map(jnp.array, b.prompts) for b in (mine, other)), 7)
        for name, array in vars(mine.sized(*sizes).prompts).items():
            np.testing.assert_array_equal(getattr(found, name), array, err_msg=name)


@pytest.mark.parametrize("devices", [1, 2])
def test_rows_of_both_in_the_shapes_of_the_larger(devices):
    mesh = make_mesh(1, devices, 1, devices=jax.devices()[:devices])
    small, large = host(SMALL), host(LARGE)
    trees = [
        shard_batch(mesh, (batch.prompts, np.arange(2) + first, None))
        for first, batch in ((10, small), (20, large))
    ]
    with jax.set_mesh(mesh):
        places = jax.device_put(np.array([3, 1]), jax.NamedSharding(mesh, jax.P()))
        prompts, numbers, absent = take(*trees, places, 7)
    assert numbers.tolist() == [21, 11] and absent is None
    sizes = [max(pair) for pair in zip(small.sizes, large.sizes, strict=True)]
    wanted = [batch.sized(*sizes).prompts for batch in (large, small)]
    for name, array in vars(prompts).items():
        expected = np.stack([getattr(prompt, name)[1] for prompt in wanted])
        np.testing.assert_array_equal(array, expected, err_msg=name)
        assert len({shard.index[0].start for shard in array.addressable_shards}) == devices
