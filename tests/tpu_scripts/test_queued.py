"""queued.sh against a stand-in gcloud whose hosts really run host.sh."""

import subprocess

import pytest

AT = ["--project=my-project", "--zone=us-west4-a"]
VERBS = ["create", "setup", "launch", "follow", "status", "stop", "export", "delete", "keep"]


def flags(call):
    return [word for word in call if word.startswith("--")]


@pytest.mark.parametrize("verb", VERBS)
def test_a_dry_run_calls_nothing(cloud, verb):
    shown = cloud("queued.sh", verb)
    assert "gcloud compute tpus queued-resources" in shown
    assert cloud.calls() == [] and cloud.state() == {}


@pytest.mark.tools
def test_what_a_dry_run_shows_is_what_is_done(cloud):
    """Every shown line, pasted into a shell, calls what --yes calls."""
    cloud.overrides = ["--config.data.train=/a b/it's $HOME.jsonl"]
    for verb in ("create", "setup", "launch", "export", "delete"):
        shown = [line for line in cloud("queued.sh", verb).splitlines() if not line.startswith("#")]
        before = len(cloud.calls("gcloud"))
        cloud("queued.sh", verb, "--yes")
        done = cloud.calls("gcloud")[before:]
        if verb == "delete":  # what is pasted below needs the slice
            cloud.plan(state={"slice": "ACTIVE"})
        before = len(cloud.calls("gcloud"))
        for line in shown:
            subprocess.run(["bash", "-c", line], env=cloud.environment, capture_output=True)
        assert cloud.calls("gcloud")[before:] == done


@pytest.mark.tools
@pytest.mark.parametrize(
    "capacity, flag", [("spot", "--spot"), ("reserved", "--reserved"), ("on-demand", None)]
)
def test_capacity(cloud, capacity, flag):
    cloud.settings["CAPACITY"] = capacity
    cloud("queued.sh", "create", "--yes")
    (call,) = [call for call in cloud.calls("gcloud") if call[4] == "create"]
    assert [word for word in flags(call) if word in ("--spot", "--reserved")] == [flag] * bool(flag)


def test_one_slice(cloud):
    cloud("queued.sh", "create", "--yes")
    (call,) = [call for call in cloud.calls("gcloud") if call[4] == "create"]
    assert call[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "sari-test"]
    assert flags(call) == [
        *AT, "--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite", "--node-id=sari-test",
        "--spot", "--quiet",
    ]  # fmt: skip


@pytest.mark.tools
def test_several_slices(cloud):
    cloud.workers(2)
    cloud.settings |= {"SLICES": 2, "ACCELERATOR": "v6e-16"}
    assert "2 x v6e-16, 32 chips in all, spot" in cloud("queued.sh", "create", "--yes")
    (call,) = [call for call in cloud.calls("gcloud") if call[4] == "create"]
    assert {
        "--node-count=2",
        "--node-prefix=sari-test",
        "--runtime-version=v2-alpha-tpuv6e",
    } <= set(flags(call))
    assert not [word for word in flags(call) if word.startswith("--node-id")]
    cloud("queued.sh", "setup", "--yes")
    cloud("queued.sh", "launch", "--yes")
    cloud.until(lambda: len(cloud.trainings()) == 4)
    assert {run["host"] for run in cloud.trainings()} == {"0-0", "0-1", "1-0", "1-1"}
    assert (
        len({tuple(run["args"]) for run in cloud.trainings()}) == 1
    )  # the same command everywhere


@pytest.mark.tools
@pytest.mark.parametrize(
    "accelerator, chips, runtime",
    [
        ("v5litepod-16", 16, "v2-alpha-tpuv5-lite"), ("v6e-8", 8, "v2-alpha-tpuv6e"),
        ("v5p-16", 8, "v2-alpha-tpuv5"), ("v4-8", 4, "tpu-ubuntu2204-base"),
    ],
)  # fmt: skip
def test_chips_and_runtime_follow_from_the_accelerator(cloud, accelerator, chips, runtime):
    cloud.settings["ACCELERATOR"] = accelerator
    shown = cloud("queued.sh", "create")
    assert f" {chips} chips" in shown and f"--runtime-version={runtime} " in shown


@pytest.mark.tools
def test_verbs_may_be_given_again(cloud):
    for verb in ("create", "setup"):
        cloud("queued.sh", verb, "--yes")
        cloud("queued.sh", verb, "--yes")
    assert cloud.verbs().count("create") == 1
    assert len(cloud.calls("python3", "-m", "uv", "pip")) == 1

    cloud.plan(runs={"0-0": ["hang"]})
    cloud("queued.sh", "launch", "--yes")
    cloud.until(lambda: (cloud.folder / "ready-0-0").exists())
    assert "sari-test runs already" in cloud("queued.sh", "launch", "--yes")
    assert len(cloud.trainings()) == 1

    cloud("queued.sh", "stop", "--yes")
    assert "sari-test does not run" in cloud("queued.sh", "stop", "--yes")
    cloud("queued.sh", "delete", "--yes")
    assert "gone already" in cloud("queued.sh", "delete", "--yes")
    assert cloud.verbs().count("delete") == 1


@pytest.mark.tools
def test_create_waits_until_the_slice_is_there(cloud):
    cloud.plan(faults={"describe": [None, "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]})
    shown = cloud("queued.sh", "create", "--yes")
    assert "WAITING_FOR_RESOURCES" in shown and shown.rstrip().endswith("ACTIVE")


def test_create_on_a_dead_request_says_what_to_do(cloud):
    cloud.plan(state={"slice": "SUSPENDED"})
    cloud("queued.sh", "create", "--yes", code=1)
    assert "SUSPENDED and will not come back: queued.sh delete" in cloud.stderr


def test_quota_errors_are_gclouds_own(cloud):
    cloud.plan(faults={"create": ["ERROR: quota exceeded: TPUV5sPreemptible"]})
    cloud("queued.sh", "create", "--yes", code=1)
    assert "quota exceeded" in cloud.stderr


def test_a_dead_connection_is_not_a_slice_that_is_gone(cloud):
    cloud.plan(
        state={"slice": "ACTIVE"}, faults={"describe": ["ERROR: could not reach the server"]}
    )
    cloud("queued.sh", "create", "--yes", code=1)
    assert "could not reach the server" in cloud.stderr and cloud.verbs() == []


@pytest.mark.tools
def test_setup_and_launch_need_the_slice(cloud):
    for verb in ("setup", "launch", "follow", "stop", "export"):
        cloud("queued.sh", verb, "--yes", code=1)
        assert "sari-test is ABSENT: queued.sh create comes first" in cloud.stderr


@pytest.mark.tools
def test_a_host_that_does_not_answer_at_first_is_asked_again(cloud):
    cloud("queued.sh", "create", "--yes")
    cloud.plan(faults={"scp": ["ssh: connection refused"], "ssh": ["ssh: connection refused"]})
    cloud("queued.sh", "setup", "--yes")
    assert cloud.verbs() == ["create", "scp", "scp", "ssh", "ssh"]


@pytest.mark.tools
def test_a_slice_that_gcloud_passes_over_is_missed(cloud):
    """It exits 0 then, and with one slice of two no run can be."""
    cloud.settings["SLICES"] = 2
    cloud("queued.sh", "create", "--yes")
    cloud.plan(faults={"ssh": ["passes over node 1"] * 3})
    cloud("queued.sh", "setup", "--yes", code=1)
    assert "1 of 2 slices have answered" in cloud.stderr
    cloud("queued.sh", "keep", "--yes")
    assert {run["host"] for run in cloud.trainings()} == {"0-0", "1-0"}


@pytest.mark.tools
def test_setup_ships_the_commit_and_not_what_lies_about(cloud, checkout):
    cloud("queued.sh", "create", "--yes")
    loose = checkout / "loose.txt"
    loose.touch()
    cloud("queued.sh", "setup", "--yes")
    loose.unlink()
    source = cloud.folder / "hosts/0-0/sari/source"
    assert (source / "configs/grpo_nano.py").exists() and not (source / "loose.txt").exists()
    cloud.settings["REF"] = "no-such-branch"
    cloud("queued.sh", "setup", "--yes", code=2)
    assert "REF='no-such-branch' is no commit, branch or tag" in cloud.stderr


@pytest.mark.tools
def test_follow_status_and_export(cloud):
    for verb in ("create", "setup", "launch"):
        cloud("queued.sh", verb, "--yes")
    cloud.until(lambda: " finished 10" in cloud("queued.sh", "status", "--yes"))
    cloud("queued.sh", "export", "--yes")
    assert (cloud.shared / "model").is_dir()
    assert cloud.calls("sari", "export") == [
        ["sari", "export", "--workdir", f"{cloud.shared}/runs/a", "--out", f"{cloud.shared}/model"]
    ]
    shown = cloud("queued.sh", "follow")
    assert "--node=0 --worker=0" in shown and "bash host.sh log sari-test" in shown


def test_keep_takes_a_run_from_nothing_to_its_end(cloud):
    cloud.workers(2)
    assert "sari-test is finished" in cloud("queued.sh", "keep", "--yes")
    assert [verb for verb in cloud.verbs() if verb != "ssh"] == ["create", "scp"]
    assert len(cloud.trainings()) == 2 and cloud.state()["slice"] == "ACTIVE"


@pytest.mark.tools
@pytest.mark.parametrize("state", ["SUSPENDED", "FAILED"])
def test_a_slice_that_is_lost_is_created_again_and_the_run_resumes(cloud, state):
    cloud.plan(
        runs={"0-0": ["hang", "finish"]},
        faults={"describe": [None] * 8 + [f"{state} once ready-0-0"]},
    )
    cloud("queued.sh", "keep", "--yes")
    assert [verb for verb in cloud.verbs() if verb != "ssh"] == [
        "create",
        "scp",
        "delete",
        "create",
        "scp",
    ]
    assert [run["from"] for run in cloud.trainings()] == [0, 10]


@pytest.mark.tools
def test_a_lost_host_starts_all_again(cloud):
    cloud.workers(2)
    cloud.plan(runs={"0-0": ["hang", "finish"], "0-1": ["killed", "finish"]})
    cloud("queued.sh", "keep", "--yes")
    assert cloud.verbs().count("create") == 1
    assert sorted(run["host"] for run in cloud.trainings()) == ["0-0", "0-0", "0-1", "0-1"]


@pytest.mark.tools
def test_hosts_need_not_end_in_the_same_second(cloud):
    cloud.workers(2)
    cloud.plan(runs={"0-1": ["finish later"]})
    cloud("queued.sh", "keep", "--yes")
    assert len(cloud.trainings()) == 2


@pytest.mark.tools
def test_a_run_that_was_asked_to_stop_goes_on(cloud):
    cloud.plan(runs={"0-0": ["hang", "finish"]})
    for verb in ("create", "setup", "launch"):
        cloud("queued.sh", verb, "--yes")
    cloud.until(lambda: (cloud.folder / "ready-0-0").exists())
    cloud("queued.sh", "stop", "--yes")
    assert " stopped 10" in cloud("queued.sh", "status", "--yes")
    cloud("queued.sh", "keep", "--yes")
    assert [run["from"] for run in cloud.trainings()] == [0, 10]


@pytest.mark.tools
def test_an_input_error_is_not_tried_again(cloud):
    cloud.workers(2)
    cloud.plan(runs={"0-0": ["refuse"], "0-1": ["hang"]})
    cloud("queued.sh", "keep", "--yes", code=2)
    assert "sari refused its input" in cloud.stderr
    assert len(cloud.trainings()) == 2
    assert (
        cloud("queued.sh", "status", "--yes").count(" running ") == 0
    )  # nobody waits for the one that is out


@pytest.mark.tools
def test_a_mended_input_is_tried_when_keep_is_given_again(cloud):
    cloud.plan(runs={"0-0": ["refuse", "finish"]})
    cloud("queued.sh", "keep", "--yes", code=2)
    cloud("queued.sh", "keep", "--yes")
    assert len(cloud.trainings()) == 2


@pytest.mark.tools
def test_failures_are_counted(cloud):
    cloud.plan(runs={"0-0": ["crash"] * 9})
    cloud("queued.sh", "keep", "--yes", code=1)
    assert "2 failures in a row without a new checkpoint, RETRIES=1" in cloud.stderr
    assert len(cloud.trainings()) == 2


@pytest.mark.tools
def test_a_new_checkpoint_renews_patience(cloud):
    cloud.plan(runs={"0-0": ["save, crash"] * 3 + ["finish"]})
    cloud("queued.sh", "keep", "--yes")
    assert [run["from"] for run in cloud.trainings()] == [0, 10, 20, 30]


@pytest.mark.tools
def test_a_slice_that_cannot_be_had_is_given_up(cloud):
    cloud.plan(faults={"create": ["ERROR: quota exceeded"] * 9})
    cloud("queued.sh", "keep", "--yes", code=1)
    assert cloud.verbs() == ["create"] * 2


@pytest.mark.tools
def test_a_silent_slice_is_created_again(cloud):
    cloud.settings["SILENT_POLLS"] = 2
    cloud.plan(faults={"ssh": ["timed out"] * 2})
    cloud("queued.sh", "keep", "--yes")
    assert [verb for verb in cloud.verbs() if verb != "ssh"] == [
        "create",
        "delete",
        "create",
        "scp",
    ]


@pytest.mark.tools
def test_a_looking_failure_is_no_reason_to_delete(cloud):
    cloud.plan(faults={"describe": [None, None, "ERROR: could not reach the server"]})
    cloud("queued.sh", "keep", "--yes")
    assert "delete" not in cloud.verbs()
