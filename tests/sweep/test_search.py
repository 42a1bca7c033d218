import math

import pytest

from sari_jax.errors import InputError
from sari_jax.sweep.plan import NAME
from sari_jax.sweep.search import grid, log_uniform, run_name, sampled, uniform
from sari_jax.train.config import defaults, freeze

RATE, SEED = "optimizer.learning_rate", "seed"


def test_a_grid_is_every_combination_and_leaves_its_base_alone():
    base = defaults()
    before = base.to_dict()
    runs = dict(grid(base, {RATE: [1e-3, 1], SEED: [0, 2]}))
    assert list(runs) == [
        "learning_rate=0.001,seed=0",
        "learning_rate=0.001,seed=2",
        "learning_rate=1,seed=0",
        "learning_rate=1,seed=2",
    ]
    found = [freeze(config) for config in runs.values()]
    assert [(run.optimizer.learning_rate, run.seed) for run in found] == [
        (0.001, 0), (0.001, 2), (1.0, 0), (1.0, 2),
    ]  # fmt: skip
    assert base.to_dict() == before


def test_settings_that_refer_to_another_follow_it():
    base = defaults()
    base.held_out.max_tokens = base.grpo.get_ref("max_tokens")
    runs = [freeze(config) for _, config in grid(base, {"grpo.max_tokens": [8, 16]})]
    assert [run.held_out.max_tokens for run in runs] == [8, 16]


def test_lists_stand_for_tuples():
    ((name, config),) = grid(defaults(), {"data.shapes.prompt_tokens": [[160, 192]]})
    assert name == "prompt_tokens=160+192"
    assert freeze(config).data.shapes.prompt_tokens == (160, 192)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer.learning_rat": [1]}, "unknown key optimizer.learning_rat; .*'learning_rate'"),
        ({"seed": ["two"]}, "seed = 'two' is not of the type of 0"),
        ({"seed": [0.5]}, "seed = 0.5 is not of the type of 0"),
        ({"optimizer": [1]}, "optimizer = 1 is not of the type"),
        ({"seed": []}, "seed: the list of its values is empty"),
        ({"data.style": "direct"}, "data.style: 'direct' must be a list"),
    ],
)
def test_values_that_cannot_be_tried(values, message):
    with pytest.raises(InputError, match=message):
        list(grid(defaults(), values))
    with pytest.raises(InputError, match=message):
        list(sampled(defaults(), values, 1, 0))


def test_draws_stay_within_their_bounds_and_begin_alike():
    values = {
        RATE: log_uniform(1e-6, 1e-2),
        "grpo.temperature": uniform(0.5, 1.5),
        "grpo.num_completions": uniform(4, 9),
        "data.style": ["direct", "free"],
    }
    many = list(sampled(defaults(), values, 200, seed=3))
    runs = [freeze(config) for _, config in many]
    rates = [math.log10(run.optimizer.learning_rate) for run in runs]
    assert -6 <= min(rates) < -5.5 and -2.5 < max(rates) <= -2
    assert 0.3 < sum(rate < -4 for rate in rates) / 200 < 0.7
    assert all(0.5 <= run.grpo.temperature <= 1.5 for run in runs)
    assert {run.grpo.num_completions for run in runs} == {4, 5, 6, 7, 8, 9}
    assert {run.data.style for run in runs} == {"direct", "free"}
    names = [name for name, _ in many]
    assert len(set(names)) == 200 and all(map(NAME.fullmatch, names))
    for name, run in zip(names, runs, strict=True):  # a name says all of the number
        assert f"learning_rate={run.optimizer.learning_rate!r}," in name
    assert [name for name, _ in sampled(defaults(), values, 5, seed=3)] == names[:5]
    assert [name for name, _ in sampled(defaults(), values, 5, seed=4)] != names[:5]


def test_there_are_no_more_draws_than_combinations():
    names = [name for name, _ in sampled(defaults(), {SEED: [0, 1, 2]}, 3, seed=0)]
    assert sorted(names) == ["seed=0", "seed=1", "seed=2"]
    with pytest.raises(InputError, match="only 3 different draws were found, not 4"):
        list(sampled(defaults(), {SEED: [0, 1, 2]}, 4, seed=0))


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0)])
def test_bounds_the_wrong_way_round(bounds):
    for distribution in (uniform, log_uniform):
        with pytest.raises(InputError, match="below the second"):
            distribution(*bounds)
    with pytest.raises(InputError, match="above 0"):
        log_uniform(0.0, 1.0)


def test_names_are_folders_and_differ_where_values_do():
    values = [
        "runs/a.jsonl", "runs-a.jsonl", "runs a.jsonl", "../..", "", "-", "ä", "\n", "x" * 300, "x" * 301,
        1, 1.0, True, (1, 2), (12,), None,
    ]  # fmt: skip
    names = [run_name({"data.train": value}) for value in values]
    assert len(set(names)) == len(values)
    assert all(map(NAME.fullmatch, names)), names
    assert names[1] == "train=runs-a.jsonl"


def test_settings_with_the_same_last_part_have_their_whole_names():
    values = {"grpo.max_tokens": 8, "held_out.max_tokens": 9, SEED: 0}
    assert run_name(values) == "grpo.max_tokens=8,held_out.max_tokens=9,seed=0"
    long = {f"a.{'k' * 30}{n}": n for n in range(20)}
    assert NAME.fullmatch(run_name(long)) and run_name(long) != run_name(long | {"b": 1})
