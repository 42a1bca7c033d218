"""SFT, scoring, then GRPO from easy to hard on the starter corpus, for `make demo` and `make smol`.

Every step is a command that a user could type. Each is printed before it runs; a finished one is not repeated.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from experiments.commands import begin, evaluate, on_the_way, read_json, step, train
from sari_jax.atomic import write_text
from sari_jax.data.records import read_records, write_records
from sari_jax.report.curves import plot_demo
from sari_jax.train.flags import read_config_file
from sari_jax.train.metrics import read_held_out, read_metrics

STAGES = ("base", "sft", "grpo")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """The amount of data and work.

    Attributes:
        questions: the number of questions that are scored for difficulty. GRPO learns from those whose pass
            rate is neither 0 nor 1.
        attempts: the number of answers to each of these questions.
        held_out: the number of validation questions that a run is evaluated on during training.
        test: the number of questions that each model answers at the end.
        tokens: the limit of an answer in tokens.
        rows: the number of questions in a batch when scoring, and when answering the test questions.
    """

    questions: int
    attempts: int
    held_out: int
    test: int
    tokens: int
    rows: tuple[int, int]


def two_stages(
    out: Path, model: str, seed: int, size: Size, every: dict[str, int]
) -> dict[str, Any]:
    """Trains and evaluates each stage; returns the summary.

    Chains of thought are expensive, so SFT takes the first questions and GRPO others. Settings are those of
    configs/{sft,grpo}_MODEL.py.

    Args:
        every: for each stage, the number of steps between evaluations.
    """
    begin(out, model, seed, **dataclasses.asdict(size), every=every)
    write_unscored(out, config_of("sft", model), size)
    write_records(out / "test.jsonl", read_records(out / "starter/test.jsonl")[: size.test])

    def learn(stage: str, start: str, data: str) -> None:
        more = {"seed": seed} | on_the_way(out, size.held_out, every[stage])
        train(out, stage, config_of(stage, model), start, data, **more)
        examine(out, stage, size)

    examine(out, "base", size)
    learn("sft", "base", "starter/train.jsonl")
    score(out, "sft", seed, size)
    learn("grpo", "sft", "scored.jsonl")
    folders = [out / f"run-{stage}" for stage in STAGES[1:]]
    folders += [out / f"eval-{stage}" for stage in STAGES]
    step("report", *folders, "--out", out / "report.html")
    summary = {"seed": seed} | summarise(out)
    sft, grpo = (read_metrics(out / f"run-{stage}") for stage in STAGES[1:])
    plot_demo(summary, sft, grpo, out / "curves.png")
    return summary


def config_of(stage: str, model: str) -> str:
    return f"configs/{stage}_{model}.py"


def write_unscored(out: Path, config: str, size: Size) -> None:
    """Writes the training questions that come after those of SFT to unscored.jsonl."""
    questions = read_records(out / "starter/train.jsonl")
    learnt = read_config_file(config, []).data.limit
    write_records(out / "unscored.jsonl", questions[learnt : learnt + size.questions])


def score(out: Path, model: str, seed: int, size: Size) -> None:
    """Scores unscored.jsonl by how hard it is for a model; writes scored.jsonl."""
    words = ["--data", out / "unscored.jsonl", "--model", out / model, "--seed", seed]
    words += ["--attempts", size.attempts, "--rows", size.rows[0], "--max-tokens", size.tokens]
    step("score", *words, "--out", out / "scored.jsonl", makes=out / "scored.jsonl")


def examine(out: Path, model: str, size: Size, style: str = "structured") -> None:
    """Answers the test part with a model; the result is in eval-MODEL."""
    options = ["--rows", size.rows[1], "--max-tokens", size.tokens, "--style", style]
    evaluate(out, model, out / "test.jsonl", *options)


def summarise(out: Path) -> dict[str, Any]:
    """Reads the accuracy, cost and curves of each stage from the experiment's folder."""
    test = read_records(out / "test.jsonl")
    scores = {stage: read_json(out / f"eval-{stage}/scores.json") for stage in STAGES}
    answers = {stage: read_json(out / f"eval-{stage}/predictions.json") for stage in STAGES}
    runs = {stage: read_metrics(out / f"run-{stage}") for stage in STAGES[1:]}
    held_out = {stage: read_held_out(out / f"run-{stage}") for stage in runs}

    def total(rows: list[dict[str, Any]], name: str) -> float:
        return sum(row[name] for row in rows)

    return {
        "chance": chance(out),
        "test_examples": len(test),
        "accuracy": {stage: scores[stage]["accuracy"]["all"] for stage in STAGES},
        "interval": {stage: scores[stage]["interval"] for stage in STAGES},
        "format_rate": {stage: total(answers[stage], "format") / len(test) for stage in STAGES},
        "held_out": {
            stage: [[row["step"], row["accuracy"]] for row in rows]
            for stage, rows in held_out.items()
        },
        "steps": {stage: rows[-1]["step"] for stage, rows in runs.items()},
        "stage_minutes": {s: round(total(rows, "seconds") / 60, 1) for s, rows in runs.items()},
        "model_tflop": {s: round(total(rows, "model_tflop"), 1) for s, rows in runs.items()},
    }


def chance(out: Path) -> float:
    """Returns the accuracy of guessing among each test question's choices."""
    test = read_records(out / "test.jsonl")
    return sum(1 / len(record.choices) for record in test) / len(test)


def write_summary(out: Path, summary: dict[str, Any]) -> None:
    text = json.dumps(summary, indent=2) + "\n"
    write_text(out / "summary.json", text)
    print(text, file=sys.stderr)
