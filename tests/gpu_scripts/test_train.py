"""train.sbatch against stand-ins for srun, scontrol and sari."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "gpu_scripts/train.sbatch"
STAND_INS = {
    # Runs two processes, one after the other, and exits with their highest code, as srun does.
    "srun": """
        shift 2; worst=0
        for SLURM_PROCID in 0 1; do
            export SLURM_PROCID; code=0; "$@" || code=$?
            ((code <= worst)) || worst=$code
        done
        exit $worst""",
    "sari": """
        printf '%s\\n' "$@" >"args-$SLURM_PROCID"
        eval "$(cat "plan-$SLURM_PROCID")" """,
    "scontrol": 'echo "$*" >>requeued',
}
FINISHED, STOPPED = """echo '{"finished": true}'""", """echo '{"finished": false}'"""


@pytest.fixture
def job(tmp_path):
    bin = tmp_path / "bin"
    bin.mkdir()
    for name, body in STAND_INS.items():
        (bin / name).write_text(f"#!/bin/bash\n{body}\n")
        (bin / name).chmod(0o755)

    def run(first, second="exit 0", *, restarts=0, args=("--config", "a.py")):
        (tmp_path / "plan-0").write_text(first)
        (tmp_path / "plan-1").write_text(second)
        environment = {
            "PATH": f"{bin}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts),
        }  # fmt: skip
        done = subprocess.run(
            [SCRIPT, *args],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        requeued = tmp_path / "requeued"
        return done, requeued.read_text().splitlines() if requeued.exists() else []

    run.folder = tmp_path
    return run


def test_a_finished_run_is_not_sent_again(job):
    done, requeued = job(FINISHED)
    assert done.returncode == 0 and requeued == []
    assert done.stdout == '{"finished": true}\n'
    assert not list(job.folder.glob(".sari-*"))


def test_every_process_gets_the_arguments_as_they_are(job):
    args = ("--config", "a.py", "--config.data.train=/a b/it's $HOME `x`.jsonl")
    job(FINISHED, args=args)
    for process in (0, 1):
        words = (job.folder / f"args-{process}").read_text().splitlines()
        assert words == ["train", "--json", *args]


@pytest.mark.parametrize(
    "first, second", [(STOPPED, "exit 0"), ("exit 1", "exit 1"), ("exit 0", "exit 137")]
)
def test_what_was_stopped_or_failed_is_sent_again(job, first, second):
    done, requeued = job(first, second)
    assert done.returncode == 0 and requeued == ["requeue 7"]


@pytest.mark.parametrize("second", ["exit 2", "exit 137"])
def test_an_input_error_is_not_even_when_the_others_were_killed_for_it(job, second):
    done, requeued = job("exit 2", second)
    assert done.returncode == 2 and requeued == []


def test_a_signal_does_not_cut_the_last_checkpoint_off(job):
    """Slurm sends it to the shell around sari too."""
    done, requeued = job(f"kill -TERM $PPID; sleep 0.1; touch saved; {STOPPED}")
    assert (job.folder / "saved").exists() and requeued == ["requeue 7"]
    assert done.stdout == '{"finished": false}\n'


def test_restarts_are_bounded(job):
    done, requeued = job("exit 1", restarts=5)
    assert done.returncode == 1 and requeued == []
    assert "after 5 restarts" in done.stderr
