"""One of two hosts is killed at a random moment, again and again; the run must end as if nothing had happened.

Starts `sari train` as two processes on this machine, kills one of them for good (SIGKILL) at a random moment, waits
for the other to notice and leave, and starts both again, as a launcher would. In the end the parameters, the metrics
and the samples are compared with those of a run that nothing disturbed, bit for bit.

Prints one JSON object; exit 1 if the ends differ, if a complete checkpoint was lost, or if a survivor did not leave.

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

DEVICES = 4  # of each host
# Seconds of silence after which a host takes the other for dead, or for absent.
HEARTBEAT, JOIN = 10, 60
TRAIN = [sys.executable, "-m", "sari_jax.cli", "train"]
PATIENCE = 120  # seconds in which a survivor has to be gone


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"))
    parser.add_argument(
        "--undisturbed", type=Path, help="the workdir of such a run, if there is one"
    )
    args, overrides = parser.parse_known_args()
    told = chaos(args, overrides)
    print(json.dumps(told, indent=2))
    return 0 if told["identical"] and told["lost_checkpoints"] == told["hung"] == 0 else 1


def chaos(args: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    """What happened."""

    def words(workdir: Path) -> list[str]:
        return [*TRAIN, "--config", args.config, "--workdir", str(workdir), *overrides]

    undisturbed, killed = args.undisturbed or args.out / "undisturbed", args.out / "killed"
    if not args.undisturbed:
        with Hosts(words(undisturbed)) as hosts:
            hosts.raise_collectively()
    chance, begun = random.Random(args.seed), time.monotonic()
    deaths, lost, repeated = [], 0, []
    while len(deaths) < args.kills:
        with Hosts(words(killed)) as hosts:
            death = hosts.kill_one(killed, chance)
            if death is None:
                break  # the run came to its end first
            deaths.append(death)
            print(f"kill {len(deaths)}: {death}", file=sys.stderr, flush=True)
    with Hosts(words(killed)) as hosts:
        hosts.raise_collectively()
        resumed = [death["resumed"] for death in deaths[1:]] + [hosts.resumed]
    for death, step in zip(deaths, resumed, strict=True):
        if step is not None:  # it was not killed before it could resume
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
    """Both processes of one start; killed if they have not left when it ends."""

    def __init__(self, words: list[str]):
        self.processes, self._told, self._begun = [], [], time.time()
        for environ in environments(HEARTBEAT):
            said = tempfile.TemporaryFile("w+")
            self._told.append(said)
            flags = f"--xla_force_host_platform_device_count={DEVICES}"
            environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
            self.processes.append(
                subprocess.Popen(
                    words, env=os.environ | environ, stdout=subprocess.DEVNULL, stderr=said
                )
            )

    def __enter__(self) -> "Hosts":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def end(self) -> None:
        for process, said in zip(self.processes, self._told, strict=True):
            if process.wait():
                said.seek(0)
                raise SystemExit(f"a host that nobody killed failed:\n{said.read()[-3000:]}")

    @property
    def resumed(self) -> int | None:
        """The step that this start went on from, once it says so."""
        self._told[0].seek(0)
        said = self._told[0].read()
        found = re.search(r"resumed after step (\d+)", said)
        return int(found[1]) if found else 0 if " records " in said else None

    def _steps(self, workdir: Path) -> int:
        """Written down since this start, which cuts what it does again; -1 until it has."""
        path = workdir / "metrics.jsonl"
        if self.resumed is None or not path.exists() or path.stat().st_mtime < self._begun:
            return -1
        return last_step(workdir) - self.resumed

    def kill_one(self, workdir: Path, chance: random.Random) -> dict[str, Any] | None:
        """Lets the run get some way, from nowhere to a few steps, and kills one host there; None if it ended first."""
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
    """What makes each of so many processes a host of one run on this machine."""
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
    """Of those that are written down."""
    return read_metrics(workdir)[-1]["step"] if read_metrics(workdir) else 0


def steps(workdir: Path) -> list[int]:
    """Of complete checkpoints."""
    return [int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]


def same_end(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same parameters, and told the same on the way, but for the time it took."""
    for before, after in zip(*map(_parameters, (one, other)), strict=True):
        if before[0] != after[0] or not np.array_equal(before[1], after[1]):
            return False
    timeless = lambda row: {k: v for k, v in row.items() if "seconds" not in k}  # noqa: E731
    rows = [[timeless(row) for row in read_metrics(workdir)] for workdir in (one, other)]
    files = ("questions.jsonl", "samples.jsonl", "held_out.jsonl")
    texts = [[(workdir / name).read_text() for name in files] for workdir in (one, other)]
    return rows[0] == rows[1] and texts[0] == texts[1]


def _parameters(workdir: Path) -> list[tuple[tuple[str, ...], np.ndarray]]:
    _, params = trained_params(read_run(workdir), workdir)
    return sorted(traverse_util.flatten_dict(params).items(), key=lambda pair: pair[0])


if __name__ == "__main__":
    sys.exit(main())
