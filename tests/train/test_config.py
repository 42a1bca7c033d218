import dataclasses
import math
from pathlib import Path

import pytest

from sari_jax.errors import InputError
from sari_jax.models.config import Adapter
from sari_jax.rl.objectives import OBJECTIVES
from sari_jax.train.config import Model, Run, defaults, freeze, settings_page


def test_defaults_freeze_to_the_default_run():
    assert freeze(defaults()) == Run()
    assert hash(Run()) == hash(freeze(defaults()))


def test_the_page_of_settings_is_up_to_date():
    """Mend it by `python -m sari_jax.train.config > docs/settings.md`."""
    page = Path(__file__).parent.parent.parent / "docs" / "settings.md"
    assert page.read_text() == settings_page()


def test_what_was_written_to_disk_reads_back():
    run = dataclasses.replace(Run(), steps=7)
    plain = {**dataclasses.asdict(run)}
    plain["data"]["shapes"] = {key: list(value) for key, value in plain["data"]["shapes"].items()}
    assert freeze(plain) == run


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("stage", "gpro", "did you mean 'grpo'?"),
        ("data.order", "easy_first", "unknown"),
        ("data.style", "structurd", "did you mean 'structured'?"),
        ("model.dtype", "float16", "unknown"),
        ("steps", 0, "steps = 0 must be at least 1"),
        ("steps", 1.5, "steps = 1.5 must be int"),
        ("model.remat", True, "must be str"),
        ("model.frozen_dtype", "int4", "unknown"),
        ("model.adapter.rank", -1, "model.adapter.rank = -1 must be at least 0"),
        ("model.adapter.rnk", 4, "unknown key model.adapter.rnk; did you mean 'rank'?"),
        ("model.adapter.dropout", 1.0, "dropout = 1.0 must be at least 0 and below 1"),
        ("optimizer.learning_rate", "fast", "must be float"),
    ],
)
def test_bad_values_raise_one_line(path, value, message):
    config = defaults().to_dict()
    node = config
    *parents, last = path.split(".")
    for key in parents:
        node = node[key]
    node[last] = value
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        freeze(config)


def test_trainable_patterns_with_an_adapter_and_without():
    """The adapter, and what is named beside it; without one projector and decoder unless others are named."""
    assert Model().trainable_patterns == ("projector/*", "decoder/*")
    assert Model().network_adapter is None
    assert Model(trainable=("*",)).trainable_patterns == ("*",)
    adapter = Adapter(rank=4, dropout=0.1)
    assert Model(adapter=adapter).trainable_patterns == ("*/lora_[ab]",)
    assert Model(adapter=adapter, trainable=("projector/*",)).trainable_patterns == (
        "*/lora_[ab]",
        "projector/*",
    )
    assert Model(adapter=adapter).network_adapter == Adapter(rank=4)


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
    with pytest.raises(InputError, match="grpo.temperature = 0.0 must be finite and above 0"):
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
    config["stage"], config["grpo"]["num_completions"] = "grpo", 1
    with pytest.raises(InputError, match="at least 2"):
        freeze(config)


def grpo(**settings):
    config = defaults().to_dict()
    config["stage"] = "grpo"
    config["grpo"] |= settings
    return freeze(config)


def test_whole_numbers_pass_as_floats():
    assert grpo(temperature=2).grpo.temperature == 2.0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_by_name_has_its_own_values(name):
    run = grpo(objective=name)
    assert run.grpo.resolved_objective == OBJECTIVES[name]
    assert run.has_reference == run.grpo.uses_reference == (name in ("grpo", "rloo"))
    assert run.grpo.needs_old_logprobs == (name == "rloo")  # its KL is in the reward


def test_what_is_set_by_hand_takes_the_place_of_an_objectives_own():
    own = OBJECTIVES["dapo"]
    run = grpo(objective="dapo", clip_high=0.5, kl="k2", kl_coefficient=0.1, rewards=["accuracy=2"])
    expected = dataclasses.replace(
        own, clip_high=0.5, kl="k2", kl_coefficient=0.1, rewards=("accuracy=2",)
    )
    assert run.grpo.resolved_objective == expected and run.has_reference
    assert run.reward_weights == {"accuracy": 2.0}
    assert not grpo(kl_coefficient=0.0).has_reference
    once = grpo(objective="dapo", overlap=True, max_generation_batches=1)
    assert once.grpo.resolved_objective == dataclasses.replace(own, max_generation_batches=1)


def test_when_the_trainer_computes_the_old_log_probabilities_apart():
    assert not grpo().grpo.needs_old_logprobs and not grpo(overlap=True).grpo.needs_old_logprobs
    assert not grpo(importance_cap=2.0).grpo.needs_old_logprobs
    assert grpo(importance_cap=2.0, overlap=True).grpo.needs_old_logprobs
    assert grpo(updates_per_rollout=2).grpo.needs_old_logprobs
    assert (
        grpo(kl="k1").grpo.needs_old_logprobs
        and not grpo(kl="k1", kl_coefficient=0.0).grpo.needs_old_logprobs
    )


def test_updates_of_a_run():
    run = dataclasses.replace(grpo(updates_per_rollout=3), steps=5)
    assert (run.updates, run.updates_per_step) == (15, 3)
    run = dataclasses.replace(run, stage="sft")
    assert (run.updates, run.updates_per_step) == (5, 1) and not run.has_reference


def test_default_rewards_and_the_objectives():
    assert Run().reward_weights == {"accuracy": 1.0, "format": 1.0}
    weights = grpo(objective="dapo").reward_weights
    assert weights == {"accuracy": 1.0, "format": 1.0, "overlong": 1.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "dr-grpo"}, "did you mean 'dr_grpo'"),
        (
            {"objective": "dapo", "overlap": True},
            "grpo.overlap decodes .*; set grpo.max_generation_batches=1",
        ),
        ({"kl": "k4"}, "grpo.kl = 'k4' is unknown"),
        ({"updates_per_rollout": 0}, "grpo.updates_per_rollout = 0 must be at least 1"),
        ({"rewards": ["accurcy=1"]}, "grpo.rewards: 'accurcy' is unknown"),
        ({"rewards": ["accuracy"]}, "'accuracy' does not read NAME=WEIGHT"),
    ],
)
def test_bad_settings_of_grpo(settings, message):
    with pytest.raises(InputError, match=message):
        grpo(**settings)


@pytest.mark.parametrize(
    ("key", "value", "limit"),
    [
        ("optimizer.learning_rate", -1e-6, "finite and at least 0"),
        ("optimizer.learning_rate", math.nan, "finite and at least 0"),
        ("optimizer.weight_decay", math.inf, "finite and at least 0"),
        ("optimizer.clip_norm", 0.0, "finite and above 0; 1e9 turns clipping off"),
        ("optimizer.clip_norm", -1.0, "finite and above 0"),
        ("optimizer.b2", 1.0, "at least 0 and below 1"),
        ("data.max_bad_fraction", 1.5, "at least 0 and at most 1"),
        ("data.keep_features_gb", math.inf, "finite and at least 0"),
        ("grpo.top_p", 1.5, "above 0 and at most 1; 1 keeps all tokens"),
        ("grpo.max_generation_batches", 0, "at least 1, or -1 for the objective's own"),
        ("grpo.kl_coefficient", -0.04, "finite and at least 0, or -1 for the objective's own"),
        ("grpo.kl_coefficient", math.nan, "finite and at least 0"),
        ("grpo.clip_high", -0.2, "at least 0, or -1 for the objective's own"),
        ("grpo.clip_low", math.nan, "at least 0"),
        ("grpo.top_k", -1, "at least 0"),
        ("grpo.max_tokens", 0, "at least 1"),
        ("mesh.decode_tensor", -1, "at least 0"),
    ],
)
def test_numbers_out_of_range(key, value, limit):
    config = defaults()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=f"config: {key} = {value} must be {limit}"):
        freeze(config)
