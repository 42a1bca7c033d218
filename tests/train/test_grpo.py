"""Runs of GRPO's relatives as users start them, and what a step tells."""

import json

import pytest
from runs import (
    STEPS,
    assert_moved,
    assert_same_end_once_killed,
    assert_same_parameters,
    command,
    finish,
    rows,
    settings,
    untimed,
)

from sari_jax.errors import InputError
from sari_jax.rl.rewards.registry import RESERVED
from sari_jax.train.loop import train

OWN = """
def brevity(completion, record, style):
    return 1 - completion.num_tokens / completion.limit
"""
# Groups that differ in their rewards, in one shape.
CHANGES = {
    "grpo.num_completions": 2,
    "grpo.kl_coefficient": -1.0,  # the objective's, and not that of the config file
    "grpo.overlap": False,
    "data.style": "direct",
    "data.shapes.prompt_tokens": "(192,)",
    "data.shapes.audio_seconds": "(4.0,)",
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 0.002,
}
KINDS = {
    # Draws further batches, in an order that follows what the step has learnt from the ones before.
    "dapo": {
        "grpo.objective": "dapo",
        "grpo.max_generation_batches": 3,
        "grpo.rewards": "('accuracy=1', 'overlong=0.5')",
    },
    # Decodes ahead, keeps the old log-probabilities with it, and goes two updates on.
    "gspo": {
        "grpo.objective": "gspo",
        "grpo.updates_per_rollout": 2,
        "grpo.importance_cap": 2.0,
        "grpo.overlap": True,
        "optimizer.learning_rate": 0.004,
    },
    # Takes the KL from the reward; judges by a user's own.
    "rloo": {
        "grpo.objective": "rloo",
        "grpo.rewards": "('accuracy=1', 'format=1', 'brevity=0.5')",
        "micro_batches": 2,
    },
}


@pytest.fixture(scope="module")
def reward_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("rewards") / "own.py"
    path.write_text(OWN)
    return path


@pytest.mark.runs
@pytest.mark.parametrize("kind", KINDS)
def test_what_an_objective_tells_of_its_steps(kind, answering, scored, reward_file, tmp_path):
    changes = CHANGES | KINDS[kind] | ({"grpo.reward_file": reward_file} if kind == "rloo" else {})
    # The model's name is not "small", as that of the runs that draw by what they learnt.
    changes |= {"data.order": "adaptive", "data.refresh": 2}
    overrides = [f"--config.{key}={value}" for key, value in changes.items()]
    workdir = tmp_path / "whole"
    done = finish(command("grpo", answering, scored, workdir, *overrides))
    assert done.returncode == 0, done.stderr[-2000:]
    assert [row["step"] for row in rows(workdir)] == list(range(1, STEPS + 1))
    assert_moved(workdir)
    {"dapo": drew_more, "gspo": went_two_updates_on, "rloo": has_a_reward_of_its_own}[kind](workdir)
    if kind != "rloo":  # which keeps nothing between its steps that GRPO does not
        words = command("grpo", answering, scored, tmp_path / "again", *overrides)
        assert_same_end_once_killed(words, tmp_path / "again", workdir)


def drew_more(workdir):
    tries = [int(row["generation_batches"]) for row in rows(workdir)]
    assert max(tries) > 1 and set(tries) <= {1, 2, 3}
    asked = [json.loads(line) for line in (workdir / "questions.jsonl").read_text().splitlines()]
    assert [len(row["ids"]) for row in asked] == [4 * count for count in tries]
    assert [len(row["pass_rates"]) for row in asked] == [4 * count for count in tries]
    for row, count in zip(rows(workdir), tries, strict=True):
        assert count == 3 or row["zero_spread_left"] == 0
        assert row["zero_spread_left"] <= row["zero_spread"]
        assert "kl" not in row and "seconds_resample" in row and -1 <= row["overlong"] <= 0
    assert rows(workdir)[-1]["examples"] == 4 * sum(tries)
    assert any(row["zero_spread_left"] < row["zero_spread"] for row in rows(workdir))


def went_two_updates_on(workdir):
    found = rows(workdir)
    assert [row["updates_behind"] for row in found] == [0] + [2] * (STEPS - 1)
    assert "kl" not in found[0] and found[0]["ratio"] == pytest.approx(1, abs=1e-6)
    for row in found[1:]:
        # The trainer's old log-probabilities are those of the policy that sampled, which has moved on since.
        assert row["importance"] == pytest.approx(1, abs=1e-4)
        assert row["sampler_gap"] > 0.01 and abs(row["ratio"] - 1) > 1e-4
        assert row["clip_fraction"] > 0
    # The warm-up goes by updates, and starts from nothing.
    assert [row["learning_rate"] for row in found][:2] == pytest.approx([0.0, 0.0016])


def has_a_reward_of_its_own(workdir):
    for row in rows(workdir):
        total = row["accuracy"] + row["format"] + 0.5 * row["brevity"]
        assert row["reward"] == pytest.approx(total, rel=1e-5) and 0 < row["brevity"] < 1
        others = row.keys() - {"accuracy", "format", "brevity"}
        assert all(name in RESERVED or name.startswith("seconds") for name in others), others
        # The first update's rate is 0, so that what samples for step 2 is the reference still.
        assert row["kl"] != 0 or row["step"] <= 2


@pytest.mark.runs
def test_a_reward_that_fails_ends_the_run_in_one_line(light_model, scored, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text(OWN.replace("1 -", "1 // 0 -"))
    own = {"grpo.reward_file": str(broken), "grpo.rewards": ("accuracy=1", "brevity=0.5")}
    with pytest.raises(InputError, match="reward 'brevity' failed on a completion of record"):
        train(settings("grpo", light_model, scored, **own), tmp_path / "run")
    assert rows(tmp_path / "run") == []


@pytest.mark.runs
def test_a_reference_in_the_hosts_memory_or_in_bfloat16(light_model, scored, tmp_path):
    """In a run: the first is the same to the bit, the second as near as its rounding.

    At a rate at which what they sample next stays the same.
    """
    kinds = {
        "plain": {},
        "host": {"model.reference_memory": "host"},
        "bfloat16": {"model.reference_dtype": "bfloat16"},
    }
    for kind, changes in kinds.items():
        changes = changes | {"optimizer.learning_rate": 0.003}
        train(settings("grpo", light_model, scored, **changes), tmp_path / kind)
        assert_moved(tmp_path / kind)
    plain, host, narrow = (untimed(tmp_path / kind) for kind in kinds)
    assert host == plain
    assert_same_parameters(tmp_path / "plain", tmp_path / "host")
    # Where the policy still is the reference, KL is nothing; with a rounded one, the rounding's square.
    assert plain[0]["kl"] == pytest.approx(0, abs=1e-9) and 0 < narrow[0]["kl"] < 1e-3
    for row, wanted in zip(narrow[1:], plain[1:], strict=True):
        assert wanted["kl"] > 0.01 and row["kl"] == pytest.approx(wanted["kl"], rel=0.05)
