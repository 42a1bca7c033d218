"""host.sh: a run that it starts outlives the session, runs once, and leaves a record of how it ended."""

import json
import subprocess

import pytest

ARGS = ["--config", "configs/grpo_nano.py", "--workdir"]


@pytest.fixture
def args(cloud):
    return [*ARGS, str(cloud.shared / "runs/a")]


def state(cloud):
    return cloud.host("state", "a").split()[2:]


@pytest.mark.parametrize(
    "plan, ended, code",
    [("finish", "finished", 0), ("crash", "exit:1", 1), ("refuse", "exit:2", 2)],
)
def test_how_a_run_ended_is_written_down(cloud, args, plan, ended, code):
    cloud.plan(runs={"0-0": [plan]})
    assert state(cloud) == ["none", "-"]
    assert f"a: {ended}" in cloud.host("run", "a", *args, code=code)
    assert state(cloud)[0] == ended


@pytest.mark.tools
def test_a_run_that_is_asked_to_stop_is_not_finished(cloud, args):
    cloud.plan(runs={"0-0": ["hang"]})
    cloud.host("start", "a", *args)
    cloud.until(lambda: (cloud.folder / "ready-0-0").exists())
    assert state(cloud) == ["running", "10"]
    cloud.host("stop", "a", "30")
    assert state(cloud) == ["stopped", "10"]
    result = cloud.folder / "hosts/0-0/sari/runs/a/result.json"
    assert json.loads(result.read_text())["finished"] is False


@pytest.mark.tools
def test_a_container_that_is_terminated_does_not_pass_for_finished(cloud, args):
    """JobSet would take exit 0 for done."""
    cloud.plan(runs={"0-0": ["hang"]})
    run = subprocess.Popen(
        ["bash", cloud.checkout / "tpu_scripts/host.sh", "run", "a", *args],
        env={**cloud.environment, "HOME": str(cloud.folder / "hosts/0-0")},
        stdout=subprocess.PIPE,
    )
    cloud.until(lambda: (cloud.folder / "ready-0-0").exists())
    run.terminate()
    assert run.wait(60) == 143
    run.stdout.close()


@pytest.mark.tools
def test_what_does_not_stop_is_ended(cloud, args):
    cloud.plan(runs={"0-0": ["deaf"]})
    cloud.host("start", "a", *args)
    cloud.until(lambda: (cloud.folder / "ready-0-0").exists())
    assert "did not end in time" in cloud.host("stop", "a", "0")
    assert state(cloud) == ["lost", "10"]


@pytest.mark.tools
def test_a_run_starts_once(cloud, args):
    cloud.plan(runs={"0-0": ["hang", "finish"]})
    cloud.host("start", "a", *args)
    cloud.until(lambda: (cloud.folder / "ready-0-0").exists())
    assert "a runs already" in cloud.host("start", "a", *args)
    cloud.host("stop", "a", "30")
    cloud.host("start", "a", *args)
    cloud.until(lambda: state(cloud)[0] == "finished")
    assert len(cloud.trainings()) == 2


@pytest.mark.tools
def test_another_version_is_not_installed_under_a_run(cloud, args):
    cloud.plan(runs={"0-0": ["hang"]})
    cloud.host("start", "a", *args)
    cloud.until(lambda: cloud.trainings())
    cloud.host("install", "any.tar.gz", "commit", code=1)
    assert state(cloud)[0] == "running"


def test_the_bucket_is_mounted_once(cloud):
    cloud.host("mount", "my-bucket", str(cloud.shared))
    assert cloud.calls("gcsfuse") == []
    (cloud.folder / "mounted").unlink()
    cloud.host("mount", "my-bucket", str(cloud.shared))
    assert [call[-2:] for call in cloud.calls("gcsfuse")] == [["my-bucket", str(cloud.shared)]]
