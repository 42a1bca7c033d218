"""`make demo`: from audio files to a better model, on one small machine.

Every step is a command that a user could type; each is printed before it runs. It leaves in runs/demo summary.json,
curves.png, report.html, and `grpo`, the trained model as a Hugging Face directory. Sizes, steps and rates are ours,
chosen for two cores and a quarter of an hour; they are not taken from the paper.

The same command goes on where it stopped; `minutes` then counts from the last start.

    python -m experiments.demo [--seed N] [--out runs/demo]
"""

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

from experiments.commands import step
from experiments.two_stages import Size, two_stages, write_summary
from sari_jax.data.records import read_records

# A few chains teach the form of an answer; many more questions teach what to listen for.
SIZE = Size(questions=2400, attempts=16, held_out=96, test=600, tokens=48, rows=(32, 60))
# Steps between evaluations.
EVERY = {"sft": 50, "grpo": 65}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    args = parser.parse_args()
    begun = time.monotonic()
    model = args.out / "grpo"
    summary = two_stages(args.out, "nano", args.seed, SIZE, EVERY)
    parity = step("check", "--model", model)
    summary["export_max_abs_logit_diff"] = parity["max_abs_logit_diff"]
    write_summary(args.out, summary | {"minutes": minutes(begun)})
    last = read_records(args.out / "test.jsonl")[-1]
    asked = ["--question", last.question, "--choices", *last.choices]
    words = [".venv/bin/sari", "ask", "--model", model, "--audio", last.audio[0].path, *asked]
    print(f"Next, ask it something:\n{shlex.join(map(str, words))}", file=sys.stderr)
    return 0


def minutes(begun: float) -> float:
    """Returns the minutes since `make` started, if it sets DEMO_STARTED; else since this program started."""
    started = os.environ.get("DEMO_STARTED")
    return round(((time.time() - float(started)) if started else time.monotonic() - begun) / 60, 2)


if __name__ == "__main__":
    sys.exit(main())
