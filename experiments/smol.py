"""`make smol`: a real small language model learns to hear and to reason in sections, on one small machine.

SmolLM2-135M behind Whisper-tiny's encoder, with a new projector between them: SFT on structured chains, then GRPO on
other questions from easy to hard, both by adapters. It answers questions of the starter corpus's test part, whose
soundfonts, voices and recordings it has not heard. Settings are those of configs/{sft,grpo}_smol.py: ours.

Every step is a command that a user could type; the same command goes on where it broke off. What ends up there:
summary.json, curves.png, samples.md, report.html, and `grpo`, the trained model as a Hugging Face directory.

    python -m experiments.smol [--seed N] [--out runs/smol]
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from configs import sft_smol
from experiments.commands import begin, evaluate, on_the_way, read_json, step, train
from experiments.sari_ablation import SIZES
from sari_jax.atomic import write_text
from sari_jax.data.records import read_records, write_records
from sari_jax.report.curves import plot_demo
from sari_jax.train.metrics import read_held_out, read_metrics

SFT_QUESTIONS = sft_smol.get_config().data.limit
SIZE = SIZES["smol"]  # as many questions as an arm of the ablation has
HELD_OUT, EXAMINED = SIZE.held_out, {"sft": 30, "grpo": SIZE.every}  # steps between
SHOWN = 6  # questions in samples.md
ANSWERING = ["--max-tokens", str(SIZE.tokens), "--style", "structured"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/smol"))
    args = parser.parse_args()
    out, seed = args.out, str(args.seed)
    path = lambda name: str(out / name)  # noqa: E731
    begin(out, "smol", seed, aligned=True, **dataclasses.asdict(SIZE))
    questions = read_records(path("starter/train.jsonl"))
    later = questions[SFT_QUESTIONS : SFT_QUESTIONS + SIZE.questions]
    write_records(path("unscored.jsonl"), later)
    write_records(path("test.jsonl"), read_records(path("starter/test.jsonl"))[: SIZE.test])
    more = {"seed": seed} | on_the_way(out, HELD_OUT, EXAMINED["sft"])
    train(out, "sft", "configs/sft_smol.py", "base", "starter/train.jsonl", **more)
    examine(out, "sft")
    score = ["--attempts", SIZE.attempts, "--rows", SIZE.rows[0], "--seed", seed, *ANSWERING]
    data = ["--data", path("unscored.jsonl"), "--out", path("scored.jsonl")]
    step("score", "--model", path("sft"), *data, *score, makes=path("scored.jsonl"))
    more = {"seed": seed} | on_the_way(out, HELD_OUT, EXAMINED["grpo"])
    train(out, "grpo", "configs/grpo_smol.py", "sft", "scored.jsonl", **more)
    examine(out, "grpo")
    examine(out, "base")

    stages = ("base", "sft", "grpo")
    scores = {stage: read_json(path(f"eval-{stage}/scores.json")) for stage in stages}
    test = read_records(path("test.jsonl"))
    runs = {stage: read_metrics(out / f"run-{stage}") for stage in stages[1:]}
    summary = {
        "seed": args.seed,
        "chance": sum(1 / len(record.choices) for record in test) / len(test),
        "test_examples": len(test),
        "accuracy": {stage: scores[stage]["accuracy"]["all"] for stage in stages},
        "interval": {stage: scores[stage]["interval"] for stage in stages},
        "held_out": {
            stage: [[row["step"], row["accuracy"]] for row in read_held_out(out / f"run-{stage}")]
            for stage in runs
        },
        "steps": {stage: rows[-1]["step"] for stage, rows in runs.items()},
        "minutes": {
            stage: round(sum(row["seconds"] for row in rows) / 60, 1)
            for stage, rows in runs.items()
        },
        "model_tflop": {
            stage: round(sum(row["model_tflop"] for row in rows), 1) for stage, rows in runs.items()
        },
    }
    folders = [f"run-{stage}" for stage in runs] + [f"eval-{stage}" for stage in stages]
    step("report", *map(path, folders), "--out", path("report.html"))
    plot_demo(summary, runs["sft"], runs["grpo"], out / "curves.png")
    write_text(out / "samples.md", samples(out, stages))
    text = json.dumps(summary, indent=2) + "\n"
    write_text(out / "summary.json", text)
    print(text, file=sys.stderr)
    return 0


def examine(out: Path, stage: str) -> None:
    evaluate(out, stage, out / "test.jsonl", "--rows", str(SIZE.rows[1]), *ANSWERING)


def samples(out: Path, stages: tuple[str, ...]) -> str:
    """What each model says to the same questions, as Markdown; texts stand in code blocks as they are."""
    told = {stage: read_json(str(out / f"eval-{stage}/predictions.json")) for stage in stages}
    lines = []
    for place, record in enumerate(read_records(str(out / "test.jsonl"))[:SHOWN]):
        right = record.choices[record.answer_index]
        lines += [f"{record.question} ({', '.join(record.choices)}; right: {right})", ""]
        for stage in stages:
            said = " ".join(str(told[stage][place]["completion"]).split())
            lines += [f"    {stage}: {said}"]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
