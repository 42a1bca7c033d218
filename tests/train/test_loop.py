"""Runs as users start them: real processes, killed for good and started again."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flax import traverse_util

ROOT = Path(__file__).parent.parent.parent
STEPS = 6


@pytest.fixture(scope="module")
def small_model(tmp_path_factory) -> Path:
    """nano's files and formats with a decoder that compiles in seconds."""
    from sari_jax.assemble import NanoSize, assemble

    out = tmp_path_factory.mktemp("models") / "small"
    assemble("nano", out, size=NanoSize(width=32, layers=2, heads=2, kv_heads=1, ffn=48))
    return out


@pytest.fixture(scope="module")
def scored(starter_dir, tmp_path_factory) -> Path:
    """A few training questions with made-up pass rates, one of them hopeless.

    So few that a run walks them three times: later epochs take the tower's output from memory, a resumed run computes
    it anew, in other batches than those it was first computed in.
    """
    import dataclasses

    from sari_jax.data.records import read_records, write_records

    records = read_records(starter_dir / "train.jsonl")[:9]
    rated = [dataclasses.replace(record, pass_rate=i / 8) for i, record in enumerate(records)]
    out = tmp_path_factory.mktemp("scored") / "scored.jsonl"
    write_records(out, rated)
    return out


def command(stage: str, model: Path, data: Path, workdir: Path, *more: str) -> list[str]:
    changes = {
        "model.path": model,
        "data.train": data,
        "steps": STEPS,
        "batch_size": 4,
        "checkpoint.every": 2,
        "samples_every": 2,
    }
    if stage == "grpo":
        # The small model's runs decode a batch while they score the last one.
        ahead = model.name == "small"
        changes |= {"grpo.completions": 2, "grpo.max_tokens": 12, "grpo.overlap": ahead}
    overrides = [f"--config.{key}={value}" for key, value in changes.items()]
    config = ROOT / f"configs/{stage}_nano.py"
    return sari("train", "--config", config, "--workdir", workdir, *overrides, *more)


def sari(*words: object) -> list[str]:
    return [sys.executable, "-m", "sari_jax.cli", *map(str, words)]


def environment(devices: int = 1) -> dict[str, str]:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    # Each run compiles what the one before it did: small programs too come from the cache.
    kept = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return os.environ | kept | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}


def finish(words: list[str], devices: int = 1) -> subprocess.CompletedProcess:
    environ = environment(devices)
    return subprocess.run(words, env=environ, capture_output=True, text=True, timeout=300)


def rows(workdir: Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def trained(workdir: Path) -> dict:
    from sari_jax.train.checkpoint import read_run
    from sari_jax.train.loop import trained_params

    _, params = trained_params(read_run(workdir), workdir)
    return {
        path: np.asarray(array)
        for path, array in traverse_util.flatten_dict(params, sep="/").items()
    }


@pytest.fixture(scope="module")
def whole(request, scored, tmp_path_factory):
    """A function that gives the workdir of a run that nothing disturbed; read only."""

    @functools.cache
    def run(stage: str, family: str) -> Path:
        workdir = tmp_path_factory.mktemp("whole") / f"{stage}-{family}"
        done = finish(command(stage, request.getfixturevalue(family), scored, workdir))
        assert done.returncode == 0, done.stderr[-2000:]
        return workdir

    return run


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

    kept = [{k: v for k, v in row.items() if "seconds" not in k} for row in rows(undisturbed)]
    again = [{k: v for k, v in row.items() if "seconds" not in k} for row in rows(killed)]
    assert [row["step"] for row in again] == list(range(1, STEPS + 1))
    assert again == kept
    if stage == "grpo" and family == "small_model":  # every other step; none across a checkpoint
        assert [row["updates_behind"] for row in again] == [0, 1] * (STEPS // 2)
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


def rows_so_far(workdir: Path) -> list[dict]:
    try:
        return rows(workdir)
    except ValueError:  # a line that is being written
        return []


def test_a_finished_run_tells_its_end_again_and_other_settings_are_refused(
    small_model, whole, scored, tmp_path
):
    workdir = whole("sft", "small_model")
    words = command("sft", small_model, scored, workdir)
    before = rows(workdir)
    again = finish([*words, "--json"])
    assert again.returncode == 0 and json.loads(again.stdout) == before[-1]
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
