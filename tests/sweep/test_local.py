"""Sweeps as users start them: real processes, some of which fail, are killed, or are asked to stop."""

import csv
import json
import os
import signal
import subprocess
import time
from types import SimpleNamespace

import numpy as np
import optuna
import psutil
import pytest
from runs import environment, finish, rows_so_far, sari, trained, untimed

from experiments.killed_sweep import FAILED, SWEEP, killed_sweep, write_sweep
from sari_jax.errors import InputError
from sari_jax.sweep import local
from sari_jax.sweep.local import Launcher, alone, last_line, most_at_once
from sari_jax.sweep.plan import Planned, planned
from sari_jax.train.config import defaults

# Memory of the pretended machine, and of a run once it has made a step.
MEMORY = 400
SIZE = 100


class Pretended:
    """A run that takes three looks; the first of its looks is before a step."""

    now: list["Pretended"] = []
    most, codes = 0, ()

    def __init__(self, run, killed, lock):
        self.run = run
        self.killed = killed
        self.said_before = 0
        self.looks = self.resident = self.peak = 0
        self.stepped = False
        Pretended.now.append(self)
        Pretended.most = max(Pretended.most, len(Pretended.now))

    def look(self) -> int | None:
        self.looks += 1
        self.stepped = self.looks > 1
        self.resident = self.peak = SIZE if self.stepped else 1
        if self.looks < 4:
            return None
        Pretended.now.remove(self)
        return self.codes[0] if self.codes else 0


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """A function that launches eight pretended runs: how many ran at once, and how each ended."""

    def free() -> int:
        return MEMORY - sum(process.resident for process in Pretended.now)

    monkeypatch.setattr(local, "available_memory", free)
    monkeypatch.setattr(local, "_Process", Pretended)
    monkeypatch.setattr(local, "LOOK_SECONDS", 0)
    monkeypatch.setattr(Planned, "finished", property(lambda run: not Pretended.codes))
    runs = [planned(f"run-{n}", defaults(), tmp_path) for n in range(8)]

    def launch(at_once: int, codes=(), given=8):
        Pretended.now, Pretended.most, Pretended.codes = [], 0, codes
        began, ended = [], {}

        def asked():
            yield from runs[:given]
            if given < 8:
                raise InputError("no further ones")

        launcher = Launcher(at_once)
        with alone(tmp_path) as lock:
            launcher(
                asked(),
                lambda run: began.append(run.name),
                lambda run, state, reason: ended.setdefault(run.name, (state, reason)),
                lock,
            )
        assert began[:8] == [run.name for run in runs] or codes
        return Pretended.most, began, ended

    return launch


def test_as_many_at_once_as_memory_holds_and_cores_are_there(launched):
    # Two run: 200 of 400 are free or will be, and a third wants 125. Three run: 100 are.
    for at_once, most in ((8, 3), (2, 2), (1, 1)):
        found, began, ended = launched(at_once)
        assert found == most
        assert len(began) == 8 and set(ended.values()) == {("finished", "")}


def test_a_run_that_is_killed_again_and_again_is_given_up(launched):
    _, began, ended = launched(8, codes=(-signal.SIGKILL,))
    assert len(began) == 8 * 4
    reason = "killed by SIGKILL, and started again 3 times before: exit -9, nothing in its log"
    assert set(ended.values()) == {("failed", reason)}


def test_if_no_further_runs_are_given_the_running_ones_go_on_to_their_end(launched):
    with pytest.raises(InputError, match="no further ones"):
        launched(8, given=2)
    assert Pretended.most == 2 and Pretended.now == []


def test_a_run_that_something_else_stopped_stays_stopped(launched):
    _, began, ended = launched(8, codes=(0,))
    assert len(began) == 8 and set(ended.values()) == {("stopped", "")}


def test_a_step_is_a_line_more_in_the_file_of_this_start(tmp_path, monkeypatch):
    here = SimpleNamespace(pid=os.getpid(), poll=lambda: None)
    monkeypatch.setattr(local.subprocess, "Popen", lambda *_, **__: here)
    run = planned("a", defaults(), tmp_path)
    run.workdir.mkdir()
    rows, fresh = run.workdir / "metrics.jsonl", run.workdir / "fresh"
    rows.write_text("1\n")
    with alone(tmp_path) as lock:
        process = local._Process(run, 0, lock)
    stepped = []
    for change in (
        lambda: None,
        lambda: fresh.write_text("1\n2\n3\n") and fresh.rename(rows),  # longer, and not by a step
        lambda: None,
        lambda: rows.open("a").write("4\n"),
    ):
        change()
        assert process.look() is None
        stepped.append(process.stepped)
    assert stepped == [False, False, False, True]
    rss = psutil.Process().memory_info().rss
    assert process.peak >= process.resident > rss / 2


def test_a_run_that_a_killed_sweep_left_behind_keeps_others_out(tmp_path):
    with alone(tmp_path) as lock:
        left = subprocess.Popen(["sleep", "60"], pass_fds=[lock.fileno()])
    try:
        with pytest.raises(InputError, match="or a run that a killed sweep left behind"):
            with alone(tmp_path):
                pass
    finally:
        left.kill()
        left.wait()
    with alone(tmp_path):
        pass


def test_an_accelerator_is_for_one(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    assert most_at_once() == cores
    for platforms in ("", "cuda,cpu"):
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
        for backend, most in (("cpu", cores), ("tpu", 1), ("gpu", 1), ("", 1)):
            done = SimpleNamespace(stdout=f"{backend}\n")
            monkeypatch.setattr(local.subprocess, "run", lambda *_, done=done, **__: done)
            assert most_at_once() == most


def test_last_line(tmp_path):
    log = tmp_path / "a.log"
    assert last_line(log) == ""
    log.write_bytes(b"sari: one\n 30%|##\r 60%|####\r\n\n  two \xff\n \n")
    assert last_line(log) == "two \N{REPLACEMENT CHARACTER}"
    assert last_line(log, log.stat().st_size) == ""
    log.write_text("sari: one\n")
    assert last_line(log) == "one"


@pytest.fixture
def sweep_file(small_model, scored, tmp_path):
    """A function that writes a sweep over tiny SFT runs."""

    def write(text: str = SWEEP, good: int = 2):
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
        return write_sweep(tmp_path / "sweep.py", changes, good, text)

    return write


def table(out) -> dict[str, dict[str, str]]:
    with (out / "results.csv").open() as file:
        return {row["name"]: row for row in csv.DictReader(file)}


@pytest.mark.runs
def test_some_fail_one_is_killed_and_the_others_are_done(sweep_file, tmp_path, monkeypatch):
    """Six runs; experiments/killed_sweep.py makes twelve of nano."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "sweep"
    result = killed_sweep(sweep_file(), out)
    assert result["as_it_should"], result
    assert result["runs"] == 6 and result["failed"].keys() == FAILED.keys()
    good = {f"seed={n}" for n in range(2)}
    assert set(result["finished"]) == good | {"killed", "undisturbed"}
    said = "\n".join(result["said"])
    assert all(f"{name} failed: {reason}" in said for name, reason in result["failed"].items())
    assert "killed: killed by SIGKILL; it is started again" in said
    assert "|" not in said  # no bar where there is no terminal
    assert [row["step"] for row in untimed(out / "killed")] == list(range(1, 13))
    before, after = trained(out / "undisturbed"), trained(out / "killed")
    for path, array in before.items():
        np.testing.assert_array_equal(array, after[path], err_msg=path)

    rows = table(out)
    assert len(rows) == 6 and list(rows)[0] == result["best"]
    losses = [float(row["loss"]) for row in rows.values() if row["state"] == "finished"]
    assert losses == sorted(losses) and len(losses) == 4
    assert {row["reason"] for row in rows.values()} == {"", *result["failed"].values()}
    page = (out / "report.html").read_text()
    assert all(name in page for name in result["finished"])

    # The same command again tries what failed, and leaves the rest alone, but for what is another run now.
    other = "config.seed = 5 * (name == 'undisturbed')\n        yield name, config"
    file, untouched = sweep_file(SWEEP.replace("yield name, config", other)), good | {"killed"}
    logs = {name: (out / f"{name}.log").stat() for name in untouched}
    again = finish(sari("sweep", file, "--out", out, "--json"))
    assert again.returncode == 1 and "Traceback" not in again.stderr
    repeated = json.loads(again.stdout)
    assert set(repeated["finished"]) == untouched
    refused = repeated["failed"].pop("undisturbed")
    assert "undisturbed: holds a run with another seed; name a new --workdir" in refused
    assert repeated["failed"] == result["failed"]
    assert logs == {name: (out / f"{name}.log").stat() for name in untouched}
    assert untimed(out / "undisturbed") == untimed(out / "killed")


STUDY = """
from sari_jax.sweep.search import changed
from sari_jax.train.flags import read_config_file

def suggest(trial):
    base = read_config_file({config!r}, {overrides!r})
    seed = trial.suggest_int("seed", 0, 99)
    values = {{"seed": seed, "stage": "grpo", "grpo.num_completions": 2, "grpo.max_tokens": 4}}
    values |= {{"steps": 40, "checkpoint.every": 1}}
    if trial.number == 1:
        values["data.train"] = "nowhere.jsonl"
    return changed(base, values)[1]
"""


@pytest.mark.runs
def test_a_study_that_is_stopped_goes_on_with_its_unfinished_trial(sweep_file, tmp_path):
    out = tmp_path / "study"
    words = sari("sweep", sweep_file(STUDY), "--out", out, "--trials", 2, "--at-once", 1, "--json")
    sweep = subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while len(rows_so_far(out / "trial-0")) < 2:
        assert sweep.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(InputError, match="another sweep, or a run"), alone(out):
        pass
    sweep.send_signal(signal.SIGINT)
    output, log = sweep.communicate(timeout=200)
    assert sweep.returncode == 1, log[-3000:]
    assert "sweep: stopped" in log and "the same command goes on" in log
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
    states = optuna.load_study(study_name="sweep", storage=f"sqlite:///{out}/study.db").trials
    assert [trial.state.name for trial in states] == ["COMPLETE", "FAIL"]
    assert states[0].value == pytest.approx(float(table(out)["trial-0"]["reward"]), rel=1e-5)
