"""Kills `sari eval` after half of its batches and starts it again; it must end as if nothing had happened.

Answers a benchmark's questions about stand-in clips (`experiments.standin`) twice: once undisturbed, and once killed
(SIGKILL) and started again. All files of both results are compared byte for byte.

Prints one JSON object; exit 1 if the results differ.

    python -m experiments.killed_eval --benchmark mmau-v05.15.25 --questions mmau-test-mini-v05.15.25.json \\
        --model MODEL --rows 50 --out runs/killed-eval --max-tokens 48
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from experiments.standin import write_clips
from sari_jax.evaluate.benchmarks import BENCHMARKS, read_rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--benchmark", choices=BENCHMARKS, required=True)
    parser.add_argument("--questions", required=True)
    parser.add_argument("--rows", type=int, default=50, help="questions in a batch")
    parser.add_argument("--out", type=Path, default=Path("runs/killed-eval"))
    args, words = parser.parse_known_args()
    result = killed_eval(args, words)
    print(json.dumps(result, indent=2))
    return 0 if result["identical"] else 1


def killed_eval(args: argparse.Namespace, words: list[str]) -> dict[str, Any]:
    """Runs the experiment; returns what happened.

    Args:
        words: further arguments of `sari eval`, among them the model.
    """
    benchmark = BENCHMARKS[args.benchmark]
    rows = read_rows(args.questions, benchmark)
    clips, undisturbed, killed = (args.out / name for name in ("clips", "undisturbed", "killed"))
    for folder in (undisturbed, killed, attempts(undisturbed), attempts(killed)):
        # These are of an earlier start of this command.
        shutil.rmtree(folder, ignore_errors=True)
    write_clips(rows, benchmark, clips)

    def command(out: Path) -> list[str]:
        asked = {"benchmark": args.benchmark, "questions": args.questions, "audio-root": clips}
        asked |= {"rows": args.rows, "out": out}
        options = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
        return [sys.executable, "-m", "sari_jax.cli", "eval", *options, *words]

    subprocess.run(command(undisturbed), stdout=subprocess.DEVNULL, check=True)
    batches = math.ceil(len(rows) / args.rows)
    kept = kill_halfway(command(killed), attempts(killed), batches // 2)
    subprocess.run(command(killed), stdout=subprocess.DEVNULL, check=True)
    one, other = contents(undisturbed), contents(killed)
    files = sorted(one.keys() | other.keys())
    differing = [name for name in files if one.get(name) != other.get(name)]
    return {
        "rows": len(rows),
        "batches": batches,
        "kept_at_the_kill": len(kept),
        "files": files,
        "differing": differing,
        "identical": not differing,
    }


def attempts(out: Path) -> Path:
    """Returns the folder where `sari eval` keeps finished batches."""
    return out.with_name(f"{out.name}.attempts")


def kill_halfway(command: list[str], folder: Path, enough: int) -> list[str]:
    """Kills the command once it has kept `enough` batches; returns the names of the kept ones."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while len(list(folder.glob("batch-*.jsonl"))) < enough:
            if process.poll() is not None:
                code = process.returncode
                raise SystemExit(f"sari eval ended with {code} before it could be killed")
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    kept = sorted(path.name for path in folder.glob("batch-*.jsonl"))
    if not kept:
        raise SystemExit("sari eval ended before it could be killed; give more questions")
    return kept


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


if __name__ == "__main__":
    sys.exit(main())
