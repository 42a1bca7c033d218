"""`make demo`: from sound files to a better model, on one small machine.

Every step is a command that a user could type; each is printed before it runs. What ends up in runs/demo:
summary.json, curves.png, report.html to read and to hear, and `grpo`, the trained model as a Hugging Face directory.
Everything here is ours: sizes, steps and rates are chosen for two cores and a few minutes, not taken from the
paper.

The same command goes on where a run broke off; `minutes` then counts from the last start.

    python -m experiments.demo [--seed N] [--out runs/demo]
"""

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path

from configs import sft_nano
from experiments.commands import begin, evaluate, on_the_way, read_json, step, train
from sari_jax.atomic import write_text
from sari_jax.data.records import read_records, write_records
from sari_jax.report.curves import plot_demo
from sari_jax.train.metrics import read_metrics

# Chains are dear and questions cheap: a few teach the form of an answer, many more what to hear in the sound.
# SFT's are those with chains; the rest of the training questions is for GRPO.
SFT_QUESTIONS = sft_nano.get_config().data.limit
GRPO_QUESTIONS = 2400  # of those, scored for difficulty
ATTEMPTS = 16
# Answered on the way too, so that the page shows how answers change; the accuracies at the end are of others.
HELD_OUT, EXAMINED = 96, {"sft": 50, "grpo": 65}  # questions, and steps between
ANSWERING = ["--max-tokens", "48", "--style", "structured"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    args = parser.parse_args()
    begun, out, seed = time.monotonic(), args.out, str(args.seed)
    path = lambda name: str(out / name)  # noqa: E731
    begin(out, "nano", seed, questions=GRPO_QUESTIONS, attempts=ATTEMPTS)
    questions = read_records(path("starter/train.jsonl"))
    later = questions[SFT_QUESTIONS : SFT_QUESTIONS + GRPO_QUESTIONS]
    write_records(path("unscored.jsonl"), later)

    examine(out, "base")
    more = {"seed": seed} | on_the_way(out, HELD_OUT, EXAMINED["sft"])
    train(out, "sft", "configs/sft_nano.py", "base", "starter/train.jsonl", **more)
    examine(out, "sft")
    score = ["--attempts", str(ATTEMPTS), "--rows", "32", "--seed", seed, *ANSWERING]
    data = ["--data", path("unscored.jsonl"), "--out", path("scored.jsonl")]
    step("score", "--model", path("sft"), *data, *score, makes=path("scored.jsonl"))
    more = {"seed": seed} | on_the_way(out, HELD_OUT, EXAMINED["grpo"])
    train(out, "grpo", "configs/grpo_nano.py", "sft", "scored.jsonl", **more)
    examine(out, "grpo")
    parity = step("check", "--model", path("grpo"))

    stages = ("base", "sft", "grpo")
    scores = {stage: read_json(path(f"eval-{stage}/scores.json")) for stage in stages}
    predictions = {stage: read_json(path(f"eval-{stage}/predictions.json")) for stage in stages}
    test = read_records(path("starter/test.jsonl"))
    summary = {
        "accuracy": {stage: scores[stage]["accuracy"]["all"] for stage in stages},
        "format_rate": {
            s: sum(row["format"] for row in predictions[s]) / len(test) for s in stages
        },
        "chance": sum(1 / len(record.choices) for record in test) / len(test),
        "test_examples": len(test),
        "minutes": minutes(begun),
        "export_max_abs_logit_diff": parity["max_abs_logit_diff"],
        "seed": args.seed,
    }
    interval = {stage: scores[stage]["interval"] for stage in stages}
    plot_demo(
        summary | {"interval": interval},
        read_metrics(out / "run-sft"),
        read_metrics(out / "run-grpo"),
        out / "curves.png",
    )
    folders = [f"run-{stage}" for stage in stages[1:]] + [f"eval-{stage}" for stage in stages]
    step("report", *map(path, folders), "--out", path("report.html"))
    text = json.dumps(summary, indent=2) + "\n"
    write_text(out / "summary.json", text)
    print(text, file=sys.stderr)
    clip = test[-1].audio[0].path
    asked = ["--question", test[-1].question, "--choices", *test[-1].choices]
    words = [".venv/bin/sari", "ask", "--model", path("grpo"), "--audio", str(clip), *asked]
    print(f"Next, ask it something:\n{shlex.join(words)}", file=sys.stderr)
    return 0


def minutes(begun: float) -> float:
    """Since `make` started, set-up included, where it says so; else since this program did."""
    started = os.environ.get("DEMO_STARTED")
    return round(((time.time() - float(started)) if started else time.monotonic() - begun) / 60, 2)


def examine(out: Path, stage: str) -> None:
    evaluate(out, stage, out / "starter/test.jsonl", "--rows", "60", *ANSWERING)


if __name__ == "__main__":
    sys.exit(main())
