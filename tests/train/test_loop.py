"""Runs as users start them: real processes, killed for good and started again."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from runs import (
    STEPS,
    command,
    environment,
    finish,
    killed,
    rows,
    rows_so_far,
    sari,
    trained,
    untimed,
)


@pytest.mark.parametrize("stage", ["sft", pytest.param("grpo", marks=pytest.mark.runs)])
@pytest.mark.parametrize(
    "family", ["small_model", pytest.param("omni_dir", marks=pytest.mark.runs)]
)
def test_killed_and_started_again_it_ends_with_the_same_bits(
    stage, family, request, whole, scored, tmp_path
):
    undisturbed, again = whole(stage, family), tmp_path / "killed"
    words = command(stage, request.getfixturevalue(family), scored, again)
    killed(words, again, after=3)
    done = finish(words)
    assert done.returncode == 0, done.stderr[-2000:]

    found = untimed(again)
    assert [row["step"] for row in found] == list(range(1, STEPS + 1))
    assert found == untimed(undisturbed)
    if stage == "grpo" and family == "small_model":  # across checkpoints too
        assert [row["updates_behind"] for row in found] == [0] + [1] * (STEPS - 1)
    before, after = trained(undisturbed), trained(again)
    assert before.keys() == after.keys()
    for path, array in before.items():
        np.testing.assert_array_equal(array, after[path], err_msg=path)
    samples = [json.loads(line) for line in (again / "samples.jsonl").read_text().splitlines()]
    trained_on = [sample for sample in samples if sample["split"] == "train"]
    assert {sample["step"] for sample in trained_on} == {1, 2, 4, 6}
    if stage == "grpo":  # every question of those batches, and every completion
        assert len(trained_on) == 4 * 4
        for sample in trained_on:
            assert len(sample["completions"]) == 2
            assert sum(one["advantage"] for one in sample["completions"]) == pytest.approx(0)
    examined = [sample["step"] for sample in samples if sample["split"] == "held_out"]
    expected = [0, 4, 6] if stage == "grpo" and family == "small_model" else []
    assert examined == [step for step in expected for _ in range(5)]
    for name in ("samples.jsonl", "questions.jsonl", "held_out.jsonl"):
        assert (again / name).read_text() == (undisturbed / name).read_text()
    assert list((again / "tensorboard").iterdir())


@pytest.mark.runs
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_two_devices_find_the_losses_of_one(stage, small_model, whole, scored, tmp_path):
    wide = tmp_path / "wide"
    # Still warming up, so that fewer steps in all have the same rates.
    done = finish(command(stage, small_model, scored, wide, "--config.steps=2"), devices=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 cpu device(s)" in done.stderr
    losses = [[row["loss"] for row in rows(run)[:2]] for run in (whole(stage, "small_model"), wide)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5, abs=1e-7)
    if stage == "sft":  # where there is one device only, its model comes out all the same
        done = finish(sari("export", "--workdir", wide, "--out", tmp_path / "model"))
        assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.runs
def test_told_to_stop_it_saves_and_goes_on_with_the_same_bits(small_model, whole, scored, tmp_path):
    """In the middle of decoding ahead, where no checkpoint is due; and before there is anything to save."""
    undisturbed, stopped = whole("grpo", "small_model"), tmp_path / "stopped"
    words = command("grpo", small_model, scored, stopped, "--config.checkpoint.every=99", "--json")

    def told_to_stop(when) -> dict:
        process = subprocess.Popen(
            words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while not when(process) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        output, told = process.communicate(timeout=200)
        assert process.returncode == 0, told[-2000:]
        result = json.loads(output)
        safe = f"step {result['step']} of" if result["step"] else "nothing is trained yet"
        assert f"grpo: told to stop; {safe}" in told
        return result

    def listens(process) -> bool:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(status.split("SigCgt:")[1].split()[0], 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    assert told_to_stop(listens) == {"step": 0, "finished": False}
    result = told_to_stop(lambda _: len(rows_so_far(stopped)) >= 2)
    assert not result["finished"] and 2 <= result["step"] == len(rows(stopped)) < STEPS
    done = finish(words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (
        json.loads(done.stdout)["finished"]
        and f"resumed after step {result['step']}" in done.stderr
    )
    assert untimed(stopped) == untimed(undisturbed)
    before, after = trained(undisturbed), trained(stopped)
    for path, array in before.items():
        np.testing.assert_array_equal(array, after[path], err_msg=path)


@pytest.mark.runs
def test_updates_that_are_not_finite_end_the_run_and_their_batch_is_named(
    small_model, scored, tmp_path
):
    changes = {
        "optimizer.learning_rate": 1e30,  # the first update is the last from which anything finite comes
        "optimizer.warmup_steps": 0,
        "optimizer.name": "adamw",
        "max_skipped": 2,
        "checkpoint.every": 1,
        "samples_every": 99,
    }
    more = [f"--config.{key}={value}" for key, value in changes.items()]
    words = command("sft", small_model, scored, tmp_path / "run", *more)
    for start in ("sft: 9 records", "resumed after step 2"):  # how many there were is not forgotten
        done = finish(words)
        assert done.returncode == 2 and start in done.stderr, done.stderr[-2000:]
        *_, told = done.stderr.splitlines()
        assert told.startswith("sari: loss or gradient was not finite in 2 updates in a row, the")
        assert (
            "the last at step 3, whose batch was train-0" in told and "Traceback" not in done.stderr
        )
    found = rows(tmp_path / "run")
    assert [row["skipped"] for row in found] == [0, 1, 1]
    assert [row["skipped_total"] for row in found] == [0, 1, 2]


def test_a_finished_run_tells_its_end_again_and_other_settings_are_refused(
    small_model, whole, scored, tmp_path
):
    workdir = whole("sft", "small_model")
    words = command("sft", small_model, scored, workdir)
    before = rows(workdir)
    again = finish([*words, "--json"])
    assert again.returncode == 0 and json.loads(again.stdout) == before[-1] | {"finished": True}
    assert rows(workdir) == before

    other = finish([*words, "--config.optimizer.learning_rate=0.5"])
    assert other.returncode == 2
    assert "optimizer" in other.stderr and "Traceback" not in other.stderr
    assert rows(workdir) == before

    from sari_jax.cli import main

    export = ["export", "--workdir", str(workdir), "--out", str(tmp_path / "x"), "--step", "1"]
    assert main(export) == 2
    assert not (tmp_path / "x").exists()


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize(
    "family", ["small_model", pytest.param("omni_dir", marks=pytest.mark.runs)]
)
def test_a_trained_model_is_what_transformers_reads(family, whole, tmp_path):
    from sari_jax.cli import main

    workdir, out = str(whole("sft", family)), str(tmp_path / "model")
    assert main(["export", "--workdir", workdir, "--out", out]) == 0
    assert main(["check", "--model", out]) == 0


def test_a_full_disk_leaves_nothing(whole, tmp_path):
    """A real one, smaller than the model; a limit on files where none may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=1m none "$0"'
    namespace = ["unshare", "--map-root-user", "--mount"]
    allowed = (
        shutil.which("unshare")
        and not subprocess.run(
            [*namespace, "sh", "-c", mount, disk], capture_output=True
        ).returncode
    )
    fill = [*namespace, "sh", "-c", mount] if allowed else ["sh", "-c", "ulimit -f 2000"]
    fill[-1] += ' && "$@"; code=$?; ls -A "$0"; exit $code'
    export = sari("export", "--workdir", whole("sft", "small_model"), "--out", disk / "model")
    done = finish([*fill, str(disk), *export])
    assert done.returncode == 2, done.stderr[-2000:]
    assert "cannot be written" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not done.stdout
