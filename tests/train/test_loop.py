"""Runs as users start them: real processes, killed for good and started again."""

import json
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from runs import STEPS, command, environment, finish, rows, rows_so_far, sari, trained, untimed


@pytest.mark.parametrize("family", ["small_model", "omni_dir"])
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_killed_and_started_again_it_ends_with_the_same_bits(
    stage, family, request, whole, scored, tmp_path
):
    undisturbed, killed = whole(stage, family), tmp_path / "killed"
    words = command(stage, request.getfixturevalue(family), scored, killed)
    process = subprocess.Popen(
        words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while len(rows_so_far(killed)) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    done = finish(words)
    assert done.returncode == 0, done.stderr[-2000:]

    kept, again = untimed(undisturbed), untimed(killed)
    assert [row["step"] for row in again] == list(range(1, STEPS + 1))
    assert again == kept
    if stage == "grpo" and family == "small_model":  # across checkpoints too
        assert [row["updates_behind"] for row in again] == [0] + [1] * (STEPS - 1)
    before, after = trained(undisturbed), trained(killed)
    assert before.keys() == after.keys()
    for path, array in before.items():
        np.testing.assert_array_equal(array, after[path], err_msg=path)
    samples = [json.loads(line) for line in (killed / "samples.jsonl").read_text().splitlines()]
    steps = [sample["step"] for sample in samples]
    assert steps == sorted(steps) and set(steps) == {1, 2, 4, 6}
    assert all(sample["question"] and "completion" in sample for sample in samples)
    assert (killed / "samples.jsonl").read_text() == (undisturbed / "samples.jsonl").read_text()
    assert list((killed / "tensorboard").iterdir())


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
    from sari_jax.evaluate.parity import check

    assert main(["export", "--workdir", str(workdir), "--out", str(tmp_path / "model")]) == 0
    assert check(tmp_path / "model").ok
    assert (
        main(["export", "--workdir", str(workdir), "--out", str(tmp_path / "x"), "--step", "1"])
        == 2
    )
    assert not (tmp_path / "x").exists()


def test_a_trained_omni_is_what_transformers_reads(whole, tmp_path):
    from sari_jax.cli import main

    workdir, out = str(whole("sft", "omni_dir")), str(tmp_path / "model")
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
