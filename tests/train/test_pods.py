"""One run on two hosts or three: real processes, against the same run in one process."""

import argparse
import functools
import json
import shutil
import signal
import time

import pytest
from runs import (
    ROOT,
    STEPS,
    assert_moved,
    command,
    end_hosts,
    finish,
    rows,
    rows_so_far,
    sari,
    start_hosts,
    untimed,
)

from experiments.chaos import chaos, same_end

pytestmark = pytest.mark.runs

# Rewards, for which the records' order is written down, that differ within a group; few programs, and few tokens,
# each of which costs several exchanges over loopback.
CHANGES = {
    "batch_size": 8,
    "samples_every": 4,
    "checkpoint.every": 3,
    "data.style": "direct",
    "data.drop_unsolved": False,
    "data.shapes.prompt_tokens": "(192,)",
    "data.shapes.audio_seconds": "(4.0,)",
    "data.shapes.audios": "(1, 2)",
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 0.001,
}
OF_STAGE = {
    "sft": {"data.shapes.answer_tokens": "(12, 16)", "mesh.tensor": 2},
    "grpo": {
        **{"grpo.overlap": True, "grpo.num_completions": 4, "mesh.fsdp": 2, "mesh.data": -1},
        "mesh.decode_tensor": 2,
        **{"held_out.every": 4, "held_out.limit": 9, "held_out.max_tokens": 12},
    },
}


def words(stage, model, data, workdir, **changes) -> list[str]:
    overrides = CHANGES | OF_STAGE[stage] | {"held_out.data": data} | changes
    more = [f"--config.{key}={value}" for key, value in overrides.items()]
    return command(stage, model, data, workdir, *more, "--json")


def pod(*hosts: list[str], **settings) -> list:
    done = end_hosts(start_hosts(*hosts, **settings))
    assert not any(host.returncode for host in done), [host.stderr[-2000:] for host in done]
    return done


@pytest.fixture(scope="module")
def model(answering):
    return answering


@pytest.fixture(scope="module")
def uneven(scored, tmp_path_factory):
    """Of which one has two clips, so that one host's batches have more of them than the other's."""
    first, *others = (json.loads(line) for line in scored.read_text().splitlines())
    first["audio"] = [clip | {"start": 0.0, "end": 0.5} for clip in first["audio"] * 2]
    out = tmp_path_factory.mktemp("uneven") / "scored.jsonl"
    out.write_text("".join(json.dumps(row) + "\n" for row in [first, *others]))
    return out


@pytest.fixture(scope="module")
def pair(model, uneven, tmp_path_factory):
    """A function that gives the workdir of a run on two hosts that nothing disturbed, and what they said."""

    @functools.cache
    def run(stage: str):
        workdir = tmp_path_factory.mktemp("pair") / stage
        return workdir, pod(words(stage, model, uneven, workdir))

    return run


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_two_hosts_find_the_losses_of_one_process(stage, model, uneven, pair, tmp_path):
    together, (talks, silent) = pair(stage)
    alone = tmp_path / "alone"
    one = {"mesh.data": 1, "mesh.fsdp": 1, "mesh.tensor": 1, "mesh.decode_tensor": 0}
    done = finish(words(stage, model, uneven, alone, **one))
    assert done.returncode == 0, done.stderr[-2000:]
    for workdir in (together, alone):
        assert_moved(workdir)
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
    assert silent.stdout == ""  # nor says anything of its own; XLA may tell of slow compiling
    assert not any(line.startswith(f"{stage}:") for line in silent.stderr.splitlines())
    told = [json.loads(line) for line in (together / "samples.jsonl").read_text().splitlines()]
    assert {sample["step"] for sample in told if sample["split"] == "train"} == {1, 4}
    if stage == "grpo":
        assert [sample["step"] for sample in told if sample["split"] == "held_out"] == (
            [0] * 9 + [4] * 9 + [6] * 9
        )
        for name in ("samples.jsonl", "held_out.jsonl"):
            assert (together / name).read_text() == (alone / name).read_text()
    assert len(list((together / "tensorboard").iterdir())) == 1


def test_two_hosts_draw_as_many_batches_as_one_process(model, uneven, tmp_path):
    """And keep the same groups of them, which go from one host to the other."""
    changes = {"grpo.overlap": False, "grpo.objective": "dapo", "grpo.max_generation_batches": 3}
    changes |= {"steps": 3, "grpo.num_completions": 2}
    together, alone = tmp_path / "together", tmp_path / "alone"
    pod(words("grpo", model, uneven, together, **changes))
    one = {"mesh.data": 1, "mesh.fsdp": 1, "mesh.tensor": 1, "mesh.decode_tensor": 0}
    done = finish(words("grpo", model, uneven, alone, **changes, **one))
    assert done.returncode == 0, done.stderr[-2000:]
    found, expected = untimed(together), untimed(alone)
    assert max(row["generation_batches"] for row in found) > 1
    assert any(row["zero_spread_left"] < row["zero_spread"] for row in found)
    for row, wanted in zip(found, expected, strict=True):
        gaps = [of.pop("sampler_gap") for of in (row, wanted)]
        assert gaps[0] == pytest.approx(gaps[1], abs=1e-5)
        assert row == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    for name in ("questions.jsonl", "samples.jsonl"):
        assert (together / name).read_text() == (alone / name).read_text()


def test_three_hosts_find_the_losses_of_one_process(model, uneven, tmp_path):
    """Of one device each, which reads a third of every batch."""
    changes = {"batch_size": 6, "steps": 3, "mesh.tensor": 1, "checkpoint.every": 2}
    together, alone = tmp_path / "together", tmp_path / "alone"
    talks, *silent = pod(
        words("sft", model, uneven, together, **changes, **{"mesh.data": 3}), devices=1, count=3
    )
    done = finish(words("sft", model, uneven, alone, **changes, **{"mesh.data": 1}))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "3 cpu device(s) on 3 hosts" in talks.stderr
    assert [host.stdout for host in silent] == ["", ""]
    for workdir in (together, alone):
        assert_moved(workdir)
    found, expected = untimed(together), untimed(alone)
    assert [row["step"] for row in found] == [1, 2, 3]
    for row, wanted in zip(found, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_told_to_stop_on_one_host_both_stop_and_go_on_with_the_same_bits(
    model, uneven, pair, tmp_path
):
    undisturbed, _ = pair("grpo")
    command = words("grpo", model, uneven, tmp_path)
    processes = start_hosts(command)
    while len(rows_so_far(tmp_path)) < 3 and processes[0].poll() is None:
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    talks, silent = end_hosts(processes)
    assert talks.returncode == silent.returncode == 0, talks.stderr[-2000:] + silent.stderr
    stopped = json.loads(talks.stdout)
    assert not stopped["finished"] and 3 <= stopped["step"] == len(rows(tmp_path)) < STEPS
    assert f"grpo: asked to stop; step {stopped['step']} of {STEPS} is safe" in talks.stderr
    talks, _ = pod(command)
    assert f"resumed after step {stopped['step']}" in talks.stderr
    assert same_end(undisturbed, tmp_path)


def test_killed_on_one_host_it_ends_with_the_same_bits(model, uneven, pair, tmp_path):
    """Once, after a step; again and again, and longer: experiments/chaos.py by itself."""
    undisturbed, _ = pair("sft")
    _, config, *overrides = words("sft", model, uneven, tmp_path)[4:-1]
    settings = argparse.Namespace(
        config=config, kills=1, seed=16, out=tmp_path, undisturbed=undisturbed
    )
    told = chaos(settings, overrides[2:])
    assert told["identical"] and told["steps"] == STEPS and told["kills"] == 1, told
    assert told["hung"] == told["lost_checkpoints"] == 0, told


def test_hosts_that_do_not_run_the_same_stop_before_anything_is_written(model, uneven, tmp_path):
    shutil.copytree(ROOT / "sari_jax", tmp_path / "tree" / "sari_jax")
    with (tmp_path / "tree" / "sari_jax" / "errors.py").open("a") as file:
        file.write("# another state of the code\n")
    workdir = tmp_path / "run"
    mine = words("sft", model, uneven, workdir)
    other = words("sft", model, uneven, workdir, **{"optimizer.learning_rate": 0.5})
    changes = ({}, {"PYTHONPATH": str(tmp_path / "tree"), "PYTHONSAFEPATH": "1"})
    for host in end_hosts(start_hosts(mine, other, changes=changes)):
        assert host.returncode == 2 and host.stdout == ""
        *_, told = host.stderr.splitlines()
        assert told.startswith(
            "sari: the hosts do not run the same: optimizer.learning_rate: 0.5 on host 1,"
        )
        assert "version.sari_jax: " in told and told.endswith("on every host")
        assert "Traceback" not in host.stderr
    assert not workdir.exists()


def test_scoring_on_two_hosts_is_scoring_on_one(model, uneven, tmp_path):
    """Each host answers batches in turn; what the first of them wrote before it was alone is not done again."""

    def words(out):
        more = "--attempts 4 --max-tokens 12 --style direct --rows 2 --json".split()
        return sari("score", "--model", model, "--data", uneven, "--out", tmp_path / out, *more)

    alone = finish(words("one.jsonl"))
    assert alone.returncode == 0, alone.stderr
    done = pod(words("two.jsonl"), devices=1)
    told = json.loads(done[0].stdout)
    assert done[1].stdout == ""
    assert told["histogram"] == json.loads(alone.stdout)["histogram"]
    assert told["read"] == told["kept"] + sum(told["dropped"].values()) == 9
    for name in ("jsonl", "report.json", "png"):
        assert (tmp_path / f"two.{name}").exists()
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    files = [sorted((tmp_path / f"{name}.attempts").iterdir()) for name in ("one", "two")]
    assert len(files[0]) == 6
    for one, two in zip(*files, strict=True):
        assert (one.name, one.read_bytes()) == (two.name, two.read_bytes())
