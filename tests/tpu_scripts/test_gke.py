"""gke.sh against stand-ins for xpk, kubectl, gcloud and docker; the JobSet's command really runs."""

import pytest

VERBS = ["create", "setup", "launch", "follow", "status", "stop", "delete", "keep"]
WHERE = ["--cluster=sari-test", "--project=my-project", "--zone=us-west4-a"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_dry_run_calls_nothing(cloud, verb):
    shown = cloud("gke.sh", verb)
    assert "xpk" in shown or "kubectl" in shown
    assert cloud.calls() == [] and cloud.state() == {}


@pytest.mark.tools
@pytest.mark.parametrize(
    "capacity, flag",
    [("spot", "--spot"), ("on-demand", "--on-demand"), ("reserved", "--reservation=ours")],
)
@pytest.mark.parametrize("slices", [1, 4])
def test_create(cloud, capacity, flag, slices):
    cloud.settings |= {"CAPACITY": capacity, "RESERVATION": "ours", "SLICES": slices}
    cloud("gke.sh", "create", "--yes")
    assert cloud.calls("xpk") == [
        ["xpk", "cluster", "create", "--tpu-type=v5litepod-16", f"--num-slices={slices}", flag,
         "--enable-gcsfuse-csi-driver", *WHERE]
    ]  # fmt: skip


@pytest.mark.tools
def test_a_cluster_that_was_there_before_is_neither_made_nor_deleted(cloud):
    cloud.settings["CLUSTER"] = "ours"
    cloud("gke.sh", "create", "--yes")
    assert cloud.calls("xpk") == []
    cloud.plan(state={"jobset": ["Suspended"]})
    cloud("gke.sh", "delete", "--yes")
    (call,) = cloud.calls("xpk")
    assert call[1:3] == ["workload", "delete"] and "--cluster=ours" in call


def test_setup_builds_the_commit_and_attaches_the_bucket(cloud):
    cloud("gke.sh", "setup", "--yes")
    image = cloud.settings["IMAGE"]
    assert cloud.calls("docker") == [
        ["docker", "build", "--tag", image, "--file", "tpu_scripts/Dockerfile", "-"],
        ["docker", "push", image],
    ]
    (attach,) = cloud.calls("xpk")
    assert attach[1:4] == ["storage", "attach", "sari-test-runs"]
    assert {"--bucket=my-bucket", f"--mount-point={cloud.shared}", "--readonly=false"} <= set(
        attach
    )


def test_launch(cloud):
    cloud.settings["SLICES"] = 2
    cloud.overrides = ["--config.data.train=/a b/it's.jsonl"]
    cloud("gke.sh", "launch", "--yes")
    (call,) = cloud.calls("xpk")
    assert call == [
        "xpk", "workload", "create", "--workload=sari-test", "--tpu-type=v5litepod-16", "--num-slices=2",
        f"--docker-image={cloud.settings['IMAGE']}", "--max-restarts=1", "--restart-on-exit-codes=1,3-126",
        "--termination-grace-period-seconds=30", call[10], *WHERE,
    ]  # fmt: skip
    assert call[10].startswith("--command=exec bash tpu_scripts/host.sh run sari-test --config")
    assert "\n" not in call[10]  # xpk puts it into YAML as it stands
    assert cloud.trainings()[0]["args"][-1] == "--config.data.train=/a b/it's.jsonl"


@pytest.mark.tools
def test_launch_may_be_given_again(cloud):
    for conditions, message in (([], "runs already"), (["Completed"], "is finished")):
        cloud.plan(state={"jobset": conditions or ["StartupPolicyCompleted"]})
        assert message in cloud("gke.sh", "launch", "--yes")
    assert cloud.calls("xpk") == []
    cloud.plan(state={"jobset": ["Failed"]})
    cloud("gke.sh", "launch", "--yes")
    assert [call[1:3] for call in cloud.calls("xpk")] == [
        ["workload", "delete"],
        ["workload", "create"],
    ]


@pytest.mark.tools
def test_kubectl_gets_the_cluster_by_name(cloud):
    for verb in ("follow", "status", "launch"):
        cloud("gke.sh", verb, "--yes")
    assert {call[1] for call in cloud.calls("kubectl")} == {
        "--context=gke_my-project_us-west4_sari-test"
    }


@pytest.mark.tools
def test_delete_when_gone(cloud):
    assert "gone already" in cloud("gke.sh", "delete", "--yes")
    cloud("gke.sh", "create", "--yes")
    cloud("gke.sh", "delete", "--yes")
    assert [call[1:4] for call in cloud.calls("xpk")][-1] == ["cluster", "delete", "--force"]


@pytest.mark.tools
def test_a_crash_is_started_again_by_the_jobset(cloud):
    cloud.plan(runs={"0-0": ["save, crash", "finish"]})
    cloud("gke.sh", "keep", "--yes")
    assert len(cloud.calls("xpk")) == 1 and [run["from"] for run in cloud.trainings()] == [0, 10]


@pytest.mark.tools
def test_an_input_error_ends_the_jobset_and_keep(cloud):
    cloud.plan(runs={"0-0": ["refuse"]})
    cloud("gke.sh", "keep", "--yes", code=2)
    assert "sari refused its input" in cloud.stderr and len(cloud.trainings()) == 1
    cloud("gke.sh", "keep", "--yes")  # given again, when it is mended
    assert len(cloud.trainings()) == 2


@pytest.mark.tools
def test_a_jobset_that_used_up_its_restarts_is_launched_again_within_bounds(cloud):
    cloud.plan(runs={"0-0": ["crash"] * 2 + ["finish"]})
    cloud("gke.sh", "keep", "--yes")
    assert len(cloud.trainings()) == 3
    cloud.plan(state={}, **{"runs-0-0": ["crash"] * 20})
    cloud("gke.sh", "keep", "--yes", code=1)
    assert "RETRIES=1" in cloud.stderr
    assert len(cloud.trainings()) == 3 + 4  # two launches with one restart each


@pytest.mark.tools
def test_quota_errors_are_tried_again_within_bounds(cloud):
    cloud.plan(faults={"workload create": ["ERROR: quota exceeded"] * 9})
    cloud("gke.sh", "keep", "--yes", code=1)
    assert len(cloud.calls("xpk")) == 2
