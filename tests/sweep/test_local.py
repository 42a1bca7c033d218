"""Sweeps as users start them: real processes, some of which fail, are killed, or are told to stop."""

import csv
import json
import signal
import subprocess
import time

import numpy as np
import optuna
import psutil
import pytest
from runs import environment, finish, rows_so_far, sari, trained, untimed

SWEEP = """
from sari_jax.sweep.search import grid
from sari_jax.train.flags import read_config_file

def get_runs():
    base = read_config_file({config!r}, {overrides!r})
    yield from grid(base, {{"seed": list(range(8))}})
    yield from grid(base, {{"data.train": ["nowhere.jsonl"]}})
    yield from grid(base, {{"data.shapes.audio_seconds": [(0.5,)]}})
    for name in ("killed", "undisturbed"):
        _, config = next(grid(base, {{"steps": [12], "checkpoint.every": [1]}}))
        yield name, config
"""


@pytest.fixture
def sweep_file(small_model, scored, tmp_path):
    """A function that writes a sweep over tiny SFT runs."""

    def write(text: str = SWEEP):
        changes = {
            "model.path": small_model,
            "data.train": scored,
            "steps": 3,
            "batch_size": 2,
            # Then all of them compile the same programs.
            "optimizer.schedule": "constant",
            "data.style": "direct",
            "data.shapes.answer_tokens": "(16,)",
            "optimizer.name": "adamw",
            "optimizer.warmup_steps": 0,
            "checkpoint.every": 2,
            "samples_every": 99,
        }
        overrides = [f"--config.{key}={value}" for key, value in changes.items()]
        path = tmp_path / "sweep.py"
        path.write_text(text.format(config="configs/sft_nano.py", overrides=overrides))
        return path

    return write


def process_of(sweep: subprocess.Popen, name: str) -> psutil.Process | None:
    for child in psutil.Process(sweep.pid).children():
        try:
            if child.cmdline()[-1].endswith(f"/{name}"):
                return child
        except (psutil.Error, IndexError):
            pass
    return None


def table(out) -> dict[str, dict[str, str]]:
    with (out / "results.csv").open() as file:
        return {row["name"]: row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_some_fail_one_is_killed_and_the_others_are_done(sweep_file, tmp_path):
    out = tmp_path / "sweep"
    words = sari("sweep", sweep_file(), "--out", out, "--json")
    sweep = subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 400
    while len(rows_so_far(out / "killed")) < 3:
        assert sweep.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process_of(sweep, "killed").kill()
    output, told = sweep.communicate(timeout=400)

    assert sweep.returncode == 1, told[-3000:]
    result = json.loads(output)
    assert set(result["finished"]) == {f"seed={n}" for n in range(8)} | {"killed", "undisturbed"}
    failed = result["failed"]
    assert failed.keys() == {"train=nowhere.jsonl", "audio_seconds=0.5"}
    assert "nowhere.jsonl: no such file" in failed["train=nowhere.jsonl"]
    assert "does not fit data.shapes.audio_seconds" in failed["audio_seconds=0.5"]
    assert all(f"{name} failed: {reason}" in told for name, reason in failed.items())
    assert "killed: killed by SIGKILL; it is started again" in told
    assert "resumed after step" in (out / "killed.log").read_text()
    assert "Traceback" not in told and "|" not in told  # no bar where there is no terminal

    assert [row["step"] for row in untimed(out / "killed")] == list(range(1, 13))
    assert untimed(out / "killed") == untimed(out / "undisturbed")
    before, after = trained(out / "undisturbed"), trained(out / "killed")
    for path, array in before.items():
        np.testing.assert_array_equal(array, after[path], err_msg=path)

    rows = table(out)
    assert len(rows) == 12 and list(rows)[0] == result["best"] and result["by"] == "loss"
    losses = [float(row["loss"]) for row in rows.values() if row["state"] == "finished"]
    assert losses == sorted(losses) and len(losses) == 10
    assert {row["reason"] for row in rows.values()} == {"", *failed.values()}
    page = (out / "report.html").read_text()
    assert all(name in page for name in result["finished"])

    # The same command again tries what failed, and leaves the rest alone.
    logs = {name: (out / f"{name}.log").stat() for name in result["finished"]}
    again = finish(words)
    assert again.returncode == 1 and json.loads(again.stdout) == result
    assert logs == {name: (out / f"{name}.log").stat() for name in logs}


STUDY = """
from sari_jax.sweep.search import changed
from sari_jax.train.flags import read_config_file

def suggest(trial):
    base = read_config_file({config!r}, {overrides!r})
    seed = trial.suggest_int("seed", 0, 99)
    values = {{"seed": seed, "stage": "grpo", "grpo.completions": 2, "grpo.max_tokens": 4}}
    values |= {{"steps": 40, "checkpoint.every": 1}}
    if trial.number == 1:
        values["data.train"] = "nowhere.jsonl"
    return changed(base, values)[1]
"""


@pytest.mark.slow
def test_a_study_that_is_told_to_stop_goes_on_with_the_trial_under_way(sweep_file, tmp_path):
    out = tmp_path / "study"
    words = sari("sweep", sweep_file(STUDY), "--out", out, "--trials", 2, "--at-once", 1, "--json")
    sweep = subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while len(rows_so_far(out / "trial-0")) < 2:
        assert sweep.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    other = finish(words)
    assert other.returncode == 2 and "another sweep" in other.stderr
    sweep.send_signal(signal.SIGINT)
    output, told = sweep.communicate(timeout=200)
    assert sweep.returncode == 1, told[-3000:]
    assert "told to stop" in told and "the same command goes on" in told
    assert json.loads(output)["stopped"] == ["trial-0"]
    assert table(out)["trial-0"]["state"] == "stopped"
    reached = int(table(out)["trial-0"]["steps"])
    assert 2 <= reached < 40
    settings = (out / "trial-0.json").read_text()

    done = finish(words)
    assert done.returncode == 1, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["finished"] == ["trial-0"] and "nowhere.jsonl" in result["failed"]["trial-1"]
    assert f"resumed after step {reached}" in (out / "trial-0.log").read_text()
    assert (out / "trial-0.json").read_text() == settings
    assert [row["step"] for row in untimed(out / "trial-0")] == list(range(1, 41))
    states = optuna.load_study(study_name="study", storage=f"sqlite:///{out}/study.db").trials
    assert [trial.state.name for trial in states] == ["COMPLETE", "FAIL"]
    assert states[0].value == pytest.approx(float(table(out)["trial-0"]["reward"]), rel=1e-5)
