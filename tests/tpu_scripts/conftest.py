"""A cloud of one folder: the real scripts in a checkout of their own, and stand-ins for all that they call."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
STAND_IN = Path(__file__).with_name("stand_in.py")
# All that the scripts may find besides: a machine may have the real gcloud, which no test must reach.
TOOLS = (
    "bash basename cat cp dirname env find flock git grep gzip head id mkdir mktemp mv nohup realpath rm sed setsid sh"
    " sleep sort tail tar tee touch tr wc"
).split()
STAND_INS = ("gcloud", "kubectl", "xpk", "docker", "sari", "gcsfuse", "python3")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """The scripts under git, apart from the tree the tests run in: `setup` ships a commit."""
    folder = tmp_path_factory.mktemp("checkout") / "sari jax"  # a folder's name may hold a space
    for part in ("tpu_scripts", "configs"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("slice.env"))
    (folder / ".gitignore").write_text(".cache/\n")
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=all"]):
        subprocess.run([*git, *words], check=True)
    return folder


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """A PATH of stand-ins and tools, and nothing else."""
    bin = tmp_path_factory.mktemp("programs")
    stand_ins = {
        name: f'exec "{sys.executable}" -S -E "{STAND_IN}" {name} "$@"' for name in STAND_INS
    }
    for name, does in {
        **stand_ins,
        "mountpoint": '[ -e "$CLOUD/mounted" ]',
        "sudo": ":",
        "hostname": 'echo "t1v-n-${SARI_HOST%-*}-w-${SARI_HOST#*-}"',
    }.items():
        (bin / name).write_text(f"#!/bin/sh\n{does}\n")
        (bin / name).chmod(0o755)
    for name in TOOLS:
        (bin / name).symlink_to(shutil.which(name))
    return bin


class Cloud:
    def __init__(self, folder: Path, checkout: Path, programs: Path):
        self.folder, self.checkout, self.programs = folder, checkout, programs
        self.shared = folder / "shared"
        self.settings = {
            "NAME": "sari-test", "PROJECT": "my-project", "ZONE": "us-west4-a", "ACCELERATOR": "v5litepod-16",
            "BUCKET": "my-bucket", "MOUNT": self.shared, "WORKDIR": self.shared / "runs/a",
            "CONFIG": "configs/grpo_nano.py", "EXPORT": self.shared / "model",
            "IMAGE": "us-west4-docker.pkg.dev/my-project/sari/sari_jax:a",
            "POLL_SECONDS": 0.1, "BACKOFF_SECONDS": 0, "RETRIES": 1, "STOP_SECONDS": 30,
        }  # fmt: skip
        self.overrides: list[str] = []
        self.environment = {
            "PATH": str(programs), "HOME": str(folder), "CLOUD": str(folder),
            "CHECKOUT": str(checkout), "SARI_HOST": "0-0", "WORKERS": "1",
        }  # fmt: skip

    def workers(self, number: int) -> None:
        """Sets the number of hosts of a slice; the default is one."""
        self.environment["WORKERS"] = str(number)

    def write(self, name: str, value) -> None:
        (self.folder / name).write_text(json.dumps(value))

    def plan(self, **changes) -> None:
        """Sets what will go wrong: faults={verb: [...]}, runs={host: [...]}, state={...}."""
        for name, value in changes.items():
            self.write(f"{name}.json", value)

    def __call__(self, script: str, verb: str, *flags: str, code: int = 0):
        """Runs `script verb --settings FILE flags`; returns what it printed, both streams."""
        lines = [f"{key}={value}" for key, value in self.settings.items() if value is not None]
        lines += [f"OVERRIDE={value}" for value in self.overrides]
        settings = self.folder / "slice.env"
        settings.write_text("\n".join(lines) + "\n")
        done = subprocess.run(
            [self.checkout / "tpu_scripts" / script, verb, "--settings", settings, *flags],
            env=self.environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        self.stderr = done.stderr
        return done.stdout

    def host(self, *words: str, home: str = "0-0", code: int = 0) -> str:
        """Runs host.sh on a host, as over ssh."""
        folder = self.folder / "hosts" / home
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["bash", self.checkout / "tpu_scripts/host.sh", *words],
            env={**self.environment, "HOME": str(folder), "SARI_HOST": home},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def calls(self, *start: str) -> list[list[str]]:
        """Returns the recorded calls that begin with these words."""
        path = self.folder / "calls.jsonl"
        calls = (
            [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        )
        return [call for call in calls if call[: len(start)] == list(start)]

    def verbs(self) -> list[str]:
        """Returns the verbs of calls to queued resources, without those that only look."""
        return [
            call[4] for call in self.calls("gcloud", "compute", "tpus") if call[4] != "describe"
        ]

    def trainings(self) -> list[dict]:
        path = self.folder / "sari.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def state(self) -> dict:
        path = self.folder / "state.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def until(self, true) -> None:
        end = time.monotonic() + 60
        while not true():
            assert time.monotonic() < end, "it did not happen within 60 s"
            time.sleep(0.02)


@pytest.fixture
def cloud(tmp_path, checkout, programs):
    cloud = Cloud(tmp_path, checkout, programs)
    (tmp_path / "mounted").touch()
    yield cloud
    if (tmp_path / "hosts").exists():
        subprocess.run([sys.executable, STAND_IN, "end"], env=cloud.environment, check=True)
