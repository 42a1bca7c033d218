"""The runs of a sweep as commands, for this machine and for slices; tpu_scripts really launch them, on stand-ins."""

import json
import re
import shlex
import shutil
import subprocess

import pytest

from sari_jax.cli import main
from sari_jax.sweep import slices
from sari_jax.train.flags import read_config_file

FILE = """
from sari_jax.sweep.search import grid
from sari_jax.train.config import defaults

def get_runs():
    return grid(defaults(), {"optimizer.learning_rate": [1e-3, 2e-3], "data.train": ["a b.jsonl"]})
"""
NAMES = [f"learning_rate={rate},train=a-b.jsonl-a0b8ff" for rate in ("0.001", "0.002")]


@pytest.fixture
def sweep(cloud, monkeypatch, tmp_path):
    """A function that gives `sari sweep` with --launch and these lines of settings, from the clouds' checkout."""
    monkeypatch.setattr(slices, "SCRIPTS", cloud.checkout / "tpu_scripts")
    file, settings = tmp_path / "sweep.py", tmp_path / "shared.env"
    file.write_text(FILE)

    def run(*lines: str, out=cloud.shared / "a sweep", launch="xpk", code: int = 0):
        kept = {key: value for key, value in cloud.settings.items() if value is not None}
        settings.write_text("\n".join([*(f"{k}={v}" for k, v in kept.items()), *lines]) + "\n")
        words = ["--launch", launch, "--settings", str(settings)]
        assert main(["sweep", str(file), "--out", str(out), *words]) == code
        return out

    return run


def test_commands_for_this_machine(tmp_path, capsys):
    file, out = tmp_path / "sweep.py", tmp_path / "a sweep"
    file.write_text(FILE)
    words = ["sweep", str(file), "--out", str(out), "--launch", "print"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [shlex.split(line) for line in lines] == [
        ["sari", "train", "--config", f"{out}/{name}.json", "--workdir", f"{out}/{name}"]
        for name in NAMES
    ]
    assert {path.name for path in out.iterdir()} == {f"{name}.json" for name in NAMES}
    config = read_config_file(shlex.split(lines[1])[3], [])
    assert config.optimizer.learning_rate == 2e-3 and config.data.train == "a b.jsonl"
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"commands": dict(zip(NAMES, lines, strict=True))}


@pytest.mark.tools
def test_each_run_is_a_jobset_of_one_cluster(cloud, sweep, capsys):
    out = sweep("CLUSTER=ours", "OVERRIDE=--config.optimizer.learning_rate=9", "SLICES=2")
    lines = capsys.readouterr().out.splitlines()
    assert cloud.calls() == []  # shown, not run
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", line], env=cloud.environment, capture_output=True, text=True, timeout=40
        )
        assert done.returncode == 0, done.stderr
        cloud.plan(state={})  # the stand-in knows of one JobSet only
    calls = cloud.calls("xpk", "workload", "create")
    assert all({"--cluster=ours", "--num-slices=2"} <= set(call) for call in calls)
    jobsets = [next(w for w in call if w.startswith("--workload=")) for call in calls]
    assert len(set(jobsets)) == 2
    assert all(re.fullmatch("--workload=sari-test-learning-rate-0-[0-9a-f]{6}", w) for w in jobsets)
    assert [training["args"] for training in cloud.trainings()] == [
        ["train", "--json", "--config", f"{out}/{name}.json", "--workdir", f"{out}/{name}"]
        for name in NAMES
    ]
    sweep("CLUSTER=ours", "SLICES=2")
    assert capsys.readouterr().out.splitlines() == lines  # again, the same JobSets


@pytest.mark.tools
def test_each_run_has_a_queued_resource_of_its_own(cloud, sweep, capsys, tmp_path):
    """Created, kept until the run is finished, and given back; a finished run is not launched again."""
    out = sweep(launch="queued")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and cloud.calls() == []
    done = subprocess.run(
        ["bash"],
        input="\n".join(lines),
        env=cloud.environment | {"SSH_READS": "all there is"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    verbs = [verb for verb in cloud.verbs() if verb in ("create", "delete")]
    assert verbs == ["create", "delete"] * 2
    created = cloud.calls("gcloud", "compute", "tpus", "queued-resources", "create")
    assert len({call[5] for call in created}) == 2
    assert [training["args"][:6] for training in cloud.trainings()] == [
        ["train", "--json", "--config", f"{out}/{name}.json", "--workdir", f"{out}/{name}"]
        for name in NAMES
    ]
    settings = (out / f"{NAMES[0]}.json").read_text()
    (out / NAMES[0] / "checkpoints/100").mkdir(parents=True)
    (out / NAMES[0] / "config.json").write_text(settings)
    sweep(launch="queued")
    first, second = capsys.readouterr().out.splitlines()
    assert second == lines[1] and first == lines[0].split(" && ")[1]  # to be sure of it
    (out / NAMES[1] / "checkpoints/100").mkdir(parents=True, exist_ok=True)
    (out / NAMES[1] / "config.json").write_text((out / f"{NAMES[1]}.json").read_text())
    sweep("CLUSTER=ours")
    output = capsys.readouterr()
    assert not output.out and "all 2 runs are finished" in output.err
    words = ["sweep", str(tmp_path / "sweep.py"), "--out", str(out), "--launch", "none", "--json"]
    shutil.rmtree(out / NAMES[0])
    (out / NAMES[1] / "metrics.jsonl").write_text('{"step": 100, "loss": 1.0, "seconds": 1.0}\n')
    assert main(words) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["waiting"], found["finished"]) == ([NAMES[0]], [NAMES[1]])
    assert "| waiting |" in (out / "results.md").read_text()


def test_a_setting_that_the_script_refuses_is_reported_by_the_script(
    cloud, sweep, capsys, tmp_path
):
    sweep("CLUSTER=ours", out=tmp_path / "elsewhere")
    line, _ = capsys.readouterr().out.splitlines()
    done = subprocess.run(
        ["bash", "-c", line], env=cloud.environment, capture_output=True, text=True, timeout=40
    )
    assert done.returncode == 2 and "is not under MOUNT" in done.stderr


def test_without_a_cluster_or_settings(sweep, capsys, tmp_path):
    sweep(code=2)
    assert "CLUSTER is empty" in capsys.readouterr().err
    words = ["sweep", str(tmp_path / "sweep.py"), "--out", str(tmp_path / "o"), "--launch", "xpk"]
    assert main([*words, "--settings", str(tmp_path / "none.env")]) == 2
    assert "none.env: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--storage", "sqlite:///a.db"], "name --trials N, too"),
        (["--trials", "3", "--launch", "print"], "leave --launch out"),
        (["--at-once", "3", "--launch", "xpk"], "--at-once is for local runs"),
        (["--settings", "a.env"], "--settings is for --launch xpk and queued"),
        (["--trials", "1"], "has no suggest()"),
    ],
)
def test_options_that_do_not_go_together(words, message, tmp_path, capsys):
    file = tmp_path / "sweep.py"
    file.write_text(FILE)
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sari: ") and message in line
