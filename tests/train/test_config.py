import dataclasses

import pytest

from sari_jax.errors import InputError
from sari_jax.models.config import Adapter
from sari_jax.train.config import Model, Run, defaults, freeze, nearest


def test_defaults_freeze_to_the_default_run():
    assert freeze(defaults()) == Run()
    assert hash(Run()) == hash(freeze(defaults()))


def test_what_was_written_to_disk_reads_back():
    run = dataclasses.replace(Run(), steps=7)
    plain = {**dataclasses.asdict(run)}
    plain["data"]["shapes"] = {key: list(value) for key, value in plain["data"]["shapes"].items()}
    assert freeze(plain) == run


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("stage", "gpro", "did you mean 'grpo'?"),
        ("data.order", "easy_first", "unknown"),
        ("data.style", "structurd", "did you mean 'structured'?"),
        ("model.dtype", "float16", "unknown"),
        ("steps", 0, "steps = 0 must be at least 1"),
        ("steps", 1.5, "steps = 1.5 must be int"),
        ("model.remat", True, "must be str"),
        ("model.frozen_dtype", "int8", "unknown"),
        ("model.adapter.rank", -1, "model.adapter.rank = -1 must be at least 0"),
        ("model.adapter.rnk", 4, "unknown key model.adapter.rnk; did you mean 'rank'?"),
        ("model.adapter.dropout", 1.0, "dropout = 1.0 must be at least 0 and below 1"),
        ("optimizer.learning_rate", "fast", "must be float"),
    ],
)
def test_bad_values_are_told_in_one_line(path, value, told):
    config = defaults().to_dict()
    node = config
    *parents, last = path.split(".")
    for key in parents:
        node = node[key]
    node[last] = value
    with pytest.raises(InputError, match=told.replace("?", r"\?")):
        freeze(config)


def test_what_learns_with_an_adapter_and_without():
    """The adapter, and what is named beside it; without one projector and decoder unless others are named."""
    assert Model().learns == ("projector/*", "decoder/*") and Model().added is None
    assert Model(trainable=("*",)).learns == ("*",)
    adapter = Adapter(rank=4, dropout=0.1)
    assert Model(adapter=adapter).learns == ("*/lora_[ab]",)
    assert Model(adapter=adapter, trainable=("projector/*",)).learns == (
        "*/lora_[ab]",
        "projector/*",
    )
    assert Model(adapter=adapter).added == Adapter(rank=4)


def test_an_adapter_on_nothing():
    config = defaults().to_dict()
    config["model"]["adapter"] |= {"rank": 2, "targets": ()}
    with pytest.raises(
        InputError, match="needs model.adapter.alpha above 0 and model.adapter.targets"
    ):
        freeze(config)


def test_an_unknown_key_names_the_nearest():
    config = defaults().to_dict()
    config["optimizer"]["learning_rte"] = 1.0
    with pytest.raises(
        InputError, match="unknown key optimizer.learning_rte; did you mean 'learning_rate'"
    ):
        freeze(config)


def test_greedy_groups_have_no_spread():
    config = defaults().to_dict()
    config["stage"], config["grpo"]["temperature"] = "grpo", 0.0
    with pytest.raises(InputError, match="grpo.temperature = 0.0 must be above 0"):
        freeze(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [("samples_every", 0), ("seed", -1), ("data.limit", -5), ("checkpoint.keep", 0)],
)
def test_numbers_below_their_least(key, value):
    config = defaults()
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=f"{key} = {value} must be at least"):
        freeze(config)


def test_a_group_of_one_is_no_group():
    config = defaults().to_dict()
    config["stage"], config["grpo"]["completions"] = "grpo", 1
    with pytest.raises(InputError, match="at least 2"):
        freeze(config)


def test_whole_numbers_pass_as_floats_and_the_weights_are_named_after_rewards():
    config = defaults().to_dict()
    config["grpo"]["accuracy_weight"] = 2
    run = freeze(config)
    assert run.reward_weights == {"format": 1.0, "accuracy": 2.0}


def test_nearest_lists_all_where_nothing_is_near():
    assert nearest("zzz", ["b", "a"]) == "known: a, b"
