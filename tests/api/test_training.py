import json

import pytest
import runs

import sari_jax as sari
from sari_jax.errors import InputError
from sari_jax.train.config import defaults, freeze
from sari_jax.train.metrics import read_metrics, read_samples

CONFIG = "grpo:nano"


def vowels(completion, record, style) -> float:
    """The share of vowels: it differs within a group."""
    return sum(letter in "aeiou" for letter in completion) / max(len(completion), 1)


@pytest.fixture
def settings(light_model, scored):
    """A short run whose groups differ in a reward that is a function."""
    no_file = {"grpo.reward_file": "", "grpo.rewards": ("accuracy=1",), "samples_every": 1}
    return runs.settings("grpo", light_model, scored, **no_file, **{"grpo.num_completions": 2})


def test_the_settings_of_a_config(tmp_path):
    config = sari.config(CONFIG, {"steps": 7, "data.train": tmp_path, "data.shapes.audios": [1, 2]})
    assert (config.steps, config.data.train) == (7, str(tmp_path))
    assert config.data.shapes.audios == (1, 2)
    for key, value, reason in (
        ("optimizer.learning_rat", 1.0, "did you mean 'learning_rate'"),
        ("steps", "many", "config: steps = 'many'"),
    ):
        with pytest.raises(InputError, match=reason):
            sari.config(CONFIG, {key: value})
    with pytest.raises(InputError, match="no such config"):
        sari.config(tmp_path / "nowhere.py")


@pytest.mark.parametrize("form", ["run", "config", "path"])
def test_a_run_is_given_in_three_forms(form, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        "sari_jax.api.training.run_to_the_end",
        lambda run, workdir, stop, rewards, callbacks: seen.append((run, dict(rewards))) or {},
    )
    config = sari.config(CONFIG)
    given = {"run": freeze(config), "config": config, "path": CONFIG}[form]
    assert sari.train(given, tmp_path, overrides={"steps": 3}, rewards={"vowels": vowels}) == {}
    ((run, rewards),) = seen
    assert run.steps == 3 and rewards == {"vowels": vowels}
    assert run.grpo.reward_functions == ("vowels",)
    assert run.reward_weights == {"accuracy": 1.0, "format": 1.0, "vowels": 1.0}
    assert config.steps != 3, "the caller's config stays as it is"


def test_a_weight_of_the_settings_stays():
    from sari_jax.api.training import _run

    config = defaults()
    config.stage, config.grpo.rewards = "grpo", ("vowels=0.2",)
    assert _run(config, {}, {"vowels": vowels}).reward_weights == {"vowels": 0.2}
    with pytest.raises(InputError, match="'vowels' is unknown"):
        _run(config, {}, {})
    config.stage = "sft"
    with pytest.raises(InputError, match="stage = 'sft' learns from no reward"):
        _run(config, {}, {"vowels": vowels})


@pytest.mark.tools
def test_a_function_is_a_reward_and_callbacks_see_each_step(settings, tmp_path):
    events = []
    last = sari.train(
        settings, tmp_path / "run", rewards={"vowels": vowels}, callbacks=[events.append]
    )
    assert last["finished"] and [event.step for event in events] == [1, 2, 3]
    rows = read_metrics(tmp_path / "run")
    assert [{"step": e.step, **e.metrics} for e in events] == rows
    assert all("vowels" in row for row in rows)
    samples = read_samples(tmp_path / "run")
    assert [one for event in events for one in event.samples] == [
        {name: value for name, value in row.items() if name != "step"} for row in samples
    ]
    assert all("vowels" in one for one in samples[0]["completions"])
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["grpo"]["rewards"] == ["accuracy=1", "vowels=1"]
    assert len(kept["fingerprints"]["reward_functions"]) == 16

    def other(completion, record, style) -> float:
        return float(len(completion))

    with pytest.raises(InputError, match="another fingerprints.reward_functions"):
        sari.train(settings, tmp_path / "run", rewards={"vowels": other})
    with pytest.raises(InputError, match="another .*grpo.reward_functions"):
        sari.train(settings, tmp_path / "run")
    exported = sari.export(tmp_path / "run", tmp_path / "out")
    assert (exported.directory / "config.json").is_file() and not exported.is_adapter


@pytest.mark.parametrize("function", [lambda completion, record, style: 1.0, len])
def test_what_is_no_reward(settings, tmp_path, function):
    with pytest.raises(InputError, match="rewards: 'mine' (has no source|must be a function)"):
        sari.train(settings, tmp_path / "run", rewards={"mine": function})
    with pytest.raises(InputError, match="'format' is built in"):
        sari.train(settings, tmp_path / "run", rewards={"format": vowels})
    assert not (tmp_path / "run").exists()
