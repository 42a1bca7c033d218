"""Kills one of two hosts at random moments; the run must end as if nothing had happened.

Starts `sari train` as two processes on this machine. Again and again it kills one of them (SIGKILL) at a random moment,
waits until the other notices and exits, and starts both again, as a launcher would. In the end it compares parameters,
metrics and samples with those of an undisturbed run, bit for bit.

Prints one JSON object; exit 1 if the ends differ, if a complete checkpoint was lost, or if a survivor did not exit.

    python -m experiments.chaos --config configs/grpo_nano.py --kills 20 --out runs/chaos \\
        --config.model.path=MODEL --config.data.train=FILE --config.steps=60 --config.checkpoint.every=2
"""

import argparse
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from sari_jax.train.loop import trained_params
from sari_jax.train.metrics import read_metrics
from sari_jax.train.workdir import read_run

# Devices of each host.
DEVICES = 4
# Seconds of silence after which a host takes the other for dead.
HEARTBEAT = 10
# Seconds that a host waits for the other at the start.
JOIN = 60
TRAIN = [sys.executable, "-m", "sari_jax.cli", "train"]
# Seconds within which a survivor must exit.
PATIENCE = 120


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"))
    parser.add_argument(
        "--undisturbed", type=Path, help="the workdir of an undisturbed run, if there is one"
    )
    args, overrides = parser.parse_known_args()
    result = chaos(args, overrides)
    print(json.dumps(result, indent=2))
    lost_or_hung = result["lost_checkpoints"] or result["hung"]
    return 0 if result["identical"] and not lost_or_hung else 1


def chaos(args: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    """Runs the experiment; returns what happened."""

    def words(workdir: Path) -> list[str]:
        return [*TRAIN, "--config", args.config, "--workdir", str(workdir), *overrides]

    undisturbed = args.undisturbed or args.out / "undisturbed"
    killed = args.out / "killed"
    if not args.undisturbed:
        with Hosts(words(undisturbed)) as hosts:
            hosts.wait()
    chance = random.Random(args.seed)
    begun = time.monotonic()
    deaths: list[dict[str, Any]] = []
    while len(deaths) < args.kills:
        with Hosts(words(killed)) as hosts:
            death = hosts.kill_one(killed, chance)
            if death is None:
                break  # the run ended first
            deaths.append(death)
            print(f"kill {len(deaths)}: {death}", file=sys.stderr, flush=True)
    with Hosts(words(killed)) as hosts:
        hosts.wait()
        resumed = [death["resumed"] for death in deaths[1:]] + [hosts.resumed]
    lost = 0
    repeated = []
    for death, step in zip(deaths, resumed, strict=True):
        if step is not None:  # None: the next start was killed before it resumed
            lost += step < death["complete"]
            repeated.append(max(death["written"] - step, 0))
    return {
        "kills": len(deaths),
        "of_host": [death["host"] for death in deaths],
        "during_a_save": sum(death["saving"] for death in deaths),
        "before_a_step": sum(not death["steps"] for death in deaths),
        "steps": last_step(killed),
        "steps_repeated": repeated,
        "lost_checkpoints": lost,
        "hung": sum(death["survivor"] is None for death in deaths),
        "survivors_left_after": sorted(death["seconds"] for death in deaths),
        "seconds": round(time.monotonic() - begun),
        "identical": same_end(undisturbed, killed),
    }


class Hosts:
    """Both processes of one start. Those that still run at the end of the context are killed."""

    def __init__(self, words: list[str]):
        self.processes: list[subprocess.Popen] = []
        self._logs: list[Any] = []
        self._begun = time.time()
        for environ in environments(HEARTBEAT):
            log = tempfile.TemporaryFile("w+")
            self._logs.append(log)
            flags = f"--xla_force_host_platform_device_count={DEVICES}"
            environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
            self.processes.append(
                subprocess.Popen(
                    words, env=os.environ | environ, stdout=subprocess.DEVNULL, stderr=log
                )
            )

    def __enter__(self) -> "Hosts":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def wait(self) -> None:
        """Waits for both processes, which must succeed."""
        for process, log in zip(self.processes, self._logs, strict=True):
            if process.wait():
                log.seek(0)
                raise SystemExit(f"a host that nobody killed failed:\n{log.read()[-3000:]}")

    @property
    def resumed(self) -> int | None:
        """The step that this start resumed from; None until its log says so."""
        self._logs[0].seek(0)
        text = self._logs[0].read()
        found = re.search(r"resumed after step (\d+)", text)
        return int(found[1]) if found else 0 if " records " in text else None

    def _steps(self, workdir: Path) -> int:
        """Returns the steps that were recorded since this start; -1 until it has cut the ones that it repeats."""
        path = workdir / "metrics.jsonl"
        if self.resumed is None or not path.exists() or path.stat().st_mtime < self._begun:
            return -1
        return last_step(workdir) - self.resumed

    def kill_one(self, workdir: Path, chance: random.Random) -> dict[str, Any] | None:
        """Lets the run make none to a few steps and kills one host there.

        Returns:
            The circumstances of the kill; None if the run ended first.
        """
        wanted = chance.choice((None, 0, 1, 2, 3, 4))
        if wanted is None:
            time.sleep(chance.uniform(0, 8))
        while wanted is not None and self.processes[0].poll() is None:
            if self._steps(workdir) >= wanted:
                time.sleep(chance.uniform(0, 1))
                break
            time.sleep(0.01)
        host = chance.randrange(2)
        victim, survivor = self.processes[host], self.processes[1 - host]
        if victim.poll() is not None:
            return None
        victim.send_signal(signal.SIGKILL)
        complete = max(steps(workdir), default=0)
        saving = any(
            time.time() - path.stat().st_mtime < 1
            for path in (workdir / "checkpoints").glob("*tmp*")
        )
        victim.wait()
        begun = time.monotonic()
        try:
            code = survivor.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            code = None
        return {
            "host": host,
            "resumed": self.resumed,
            "steps": max(self._steps(workdir), 0),
            "written": last_step(workdir),
            "complete": complete,
            "saving": saving,
            "survivor": code,
            "seconds": round(time.monotonic() - begun, 1),
        }


def environments(heartbeat: int, count: int = 2) -> list[dict[str, str]]:
    """Returns the environment variables that make `count` processes the hosts of one run on this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return [
        {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(host),
            "SARI_HEARTBEAT_SECONDS": str(heartbeat),
            "SARI_JOIN_SECONDS": str(JOIN),
        }
        for host in range(count)
    ]


def last_step(workdir: Path) -> int:
    """Returns the last step in a run's metrics; 0 if it has none."""
    return read_metrics(workdir)[-1]["step"] if read_metrics(workdir) else 0


def steps(workdir: Path) -> list[int]:
    """Returns the steps of complete checkpoints."""
    return [int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]


def same_end(one: Path, other: Path) -> bool:
    """Returns whether two runs have the same parameters at the end, and the same records but for times."""
    for before, after in zip(*map(_parameters, (one, other)), strict=True):
        if before[0] != after[0] or not np.array_equal(before[1], after[1]):
            return False
    files = ("questions.jsonl", "samples.jsonl", "held_out.jsonl")
    same_texts = all((one / name).read_text() == (other / name).read_text() for name in files)
    return _untimed(one) == _untimed(other) and same_texts


def _untimed(workdir: Path) -> list[dict[str, Any]]:
    rows = read_metrics(workdir)
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def _parameters(workdir: Path) -> list[tuple[tuple[str, ...], np.ndarray]]:
    _, params = trained_params(read_run(workdir), workdir)
    return sorted(traverse_util.flatten_dict(params).items(), key=lambda pair: pair[0])


if __name__ == "__main__":
    sys.exit(main())
