"""One run on two hosts: two real processes with four devices each, against the same run in one process."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from runs import (
    STEPS,
    command,
    end_hosts,
    finish,
    start_hosts,
    trained,
    untimed,
)

# Rewards, for which the records' order is written down, that differ within a group; few programs, and few tokens,
# each of which costs several exchanges over loopback.
CHANGES = {
    "batch_size": 8,
    "samples_every": 4,
    "checkpoint.every": 3,
    "data.style": "direct",
    "data.drop_hopeless": False,
    "data.shapes.prompt_tokens": "(192,)",
    "data.shapes.audio_seconds": "(4.0,)",
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 0.001,
}
OF_STAGE = {
    "sft": {"data.shapes.answer_tokens": "(12, 16)", "mesh.tensor": 2},
    "grpo": {"grpo.overlap": True, "grpo.completions": 4, "mesh.fsdp": 2, "mesh.data": -1},
}
TOLD = "told to stop; step"


def words(stage, model, data, workdir, **changes) -> list[str]:
    overrides = CHANGES | OF_STAGE[stage] | changes
    more = [f"--config.{key}={value}" for key, value in overrides.items()]
    return command(stage, model, data, workdir, *more, "--json")


def pod(*hosts: list[str], **settings) -> list:
    done = end_hosts(start_hosts(*hosts, **settings))
    assert [host.returncode for host in done] == [0, 0], done[0].stderr[-2000:] + done[1].stderr
    return done


@pytest.fixture(scope="module")
def model(answering):
    return answering


@pytest.fixture(scope="module")
def pair(model, scored, tmp_path_factory):
    """A function that gives the workdir of a run on two hosts that nothing disturbed, and what they said."""

    @functools.cache
    def run(stage: str):
        workdir = tmp_path_factory.mktemp("pair") / stage
        return workdir, pod(words(stage, model, scored, workdir))

    return run


def assert_same_end(one: Path, other: Path) -> None:
    assert untimed(one) == untimed(other)
    before, after = trained(one), trained(other)
    assert before.keys() == after.keys()
    for path, array in before.items():
        np.testing.assert_array_equal(array, after[path], err_msg=path)
    assert (one / "samples.jsonl").read_text() == (other / "samples.jsonl").read_text()


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_two_hosts_find_the_losses_of_one_process(stage, model, scored, pair, tmp_path):
    together, (talks, silent) = pair(stage)
    alone = tmp_path / "alone"
    one = {"mesh.data": 1, "mesh.fsdp": 1, "mesh.tensor": 1}
    done = finish(words(stage, model, scored, alone, **one))
    assert done.returncode == 0, done.stderr[-2000:]
    found, expected = untimed(together), untimed(alone)
    assert [row["step"] for row in found] == list(range(1, STEPS + 1))
    for row, wanted in zip(found, expected, strict=True):
        if (
            "sampler_gap" in row
        ):  # a difference of log-probabilities, and no more exact than they are
            assert row.pop("sampler_gap") == pytest.approx(wanted.pop("sampler_gap"), abs=1e-5)
        assert row == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    assert len({row["loss"] for row in expected}) > 1
    if stage == "grpo":
        assert any(row["reward"] > 0 for row in expected)
        assert any(row["zero_spread"] < 1 for row in expected)

    assert json.loads(talks.stdout)["finished"] and "8 cpu device(s) on 2 hosts" in talks.stderr
    assert silent.stdout == "" and stage not in silent.stderr
    told = [json.loads(line) for line in (together / "samples.jsonl").read_text().splitlines()]
    assert {sample["step"] for sample in told} == {1, 4}
    if stage == "grpo":
        assert (together / "samples.jsonl").read_text() == (alone / "samples.jsonl").read_text()
    assert len(list((together / "tensorboard").iterdir())) == 1
