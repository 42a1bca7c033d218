"""Starts a sweep of twelve runs of nano, of which two fail and one is killed; it must end with ten results.

Needs the base model and the starter corpus that `make demo` leaves in runs/demo, or in another folder. Two runs cannot
use their data. One is killed (SIGKILL) once it has made three steps; it must equal an undisturbed run of the same
settings.

Prints one JSON object; exit 1 if the sweep ended otherwise.

    python -m experiments.killed_sweep --demo runs/demo --out runs/killed-sweep
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

SWEEP = """
from sari_jax.sweep.search import grid
from sari_jax.train.flags import read_config_file

def get_runs():
    base = read_config_file({config!r}, {overrides!r})
    yield from grid(base, {{"seed": list(range({good}))}})
    yield from grid(base, {{"data.train": ["nowhere.jsonl"]}})
    yield from grid(base, {{"data.shapes.audio_seconds": [(0.5,)]}})
    for name in ("killed", "undisturbed"):
        _, config = next(grid(base, {{"steps": [12], "checkpoint.every": [1]}}))
        yield name, config
"""
# Run -> a part of the reason that it must give.
FAILED = {
    "train=nowhere.jsonl": "no such file",
    "audio_seconds=0.5": "does not fit data.shapes.audio_seconds",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"))
    parser.add_argument("--out", type=Path, default=Path("runs/killed-sweep"))
    args = parser.parse_args()
    if args.out.exists() and any(args.out.iterdir()):
        print(f"{args.out}: is not empty; remove it, or name another --out", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    changes = {"model.path": args.demo / "base", "data.train": args.demo / "starter/train.jsonl"}
    changes |= {"steps": 6, "optimizer.schedule": "constant"}
    file = write_sweep(args.out / "sweep.py", changes, good=8)
    result = killed_sweep(file, args.out / "sweep")
    print(json.dumps(result, indent=2))
    return 0 if result["as_it_should"] else 1


def write_sweep(file: Path, changes: dict[str, object], good: int, text: str = SWEEP) -> Path:
    """Writes a sweep's file: `good` runs, two that fail, and the two that are compared."""
    overrides = [f"--config.{key}={value}" for key, value in changes.items()]
    file.write_text(text.format(config="configs/sft_nano.py", overrides=overrides, good=good))
    return file


def killed_sweep(file: Path, out: Path) -> dict[str, Any]:
    """Runs the experiment; returns what happened."""
    words = ["-m", "sari_jax.cli", "sweep", str(file), "--out", str(out), "--json"]
    begun = time.monotonic()
    sweep = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    rows = out / "killed/metrics.jsonl"
    while not rows.exists() or len(rows.read_text().splitlines()) < 3:
        if sweep.poll() is not None:
            raise SystemExit(f"the sweep ended before a run could be killed: {sweep.stderr.read()}")
        time.sleep(0.01)
    process_of(sweep.pid, "killed").kill()
    output, log = sweep.communicate()
    result = json.loads(output)
    before, after = (untimed(out / name) for name in ("undisturbed", "killed"))
    resumed = "resumed after step" in (out / "killed.log").read_text()
    named = result["failed"].keys() == FAILED.keys() and all(
        reason in result["failed"][name] for name, reason in FAILED.items()
    )
    return {
        "runs": len(result["finished"]) + len(result["failed"]),
        "finished": result["finished"],
        "failed": result["failed"],
        "killed_run_resumed": resumed,
        "and_equals_the_undisturbed": before == after,
        "best": result["best"],
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "as_it_should": named and resumed and before == after and sweep.returncode == 1,
        "said": [line for line in log.splitlines() if "killed" in line or "failed" in line],
    }


def process_of(sweep: int, name: str) -> psutil.Process:
    """Returns the process of a sweep's run."""
    for child in psutil.Process(sweep).children():
        with contextlib.suppress(psutil.Error):  # one that has ended
            if "".join(child.cmdline()[-1:]).endswith(f"/{name}"):
                return child
    raise SystemExit(f"run {name} ended before it could be killed")


def untimed(workdir: Path) -> list[dict[str, Any]]:
    """Returns the rows of a run's metrics without times."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


if __name__ == "__main__":
    sys.exit(main())
