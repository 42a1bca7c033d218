"""The paper's comparisons in miniature: does warm-up stabilise, structure generalise, and a curriculum help?

Arms, each with every seed: the base model; GRPO without SFT before it; SFT alone, on structured chains, free ones and
answers alone; SFT, then GRPO, structured and free, each from easy to hard, at random and from hard to easy; and the
same without any chain (implicit reasoning), from easy to hard. All train on the starter corpus and answer its held-out
questions, whose soundfonts, voices and recordings are others than those trained on.

Every step is a command that a user could type; the same command goes on where it broke off. Settings are those of
configs/{sft,grpo}_nano.py but for the number of steps: ours, not the paper's.

    python -m experiments.sari_ablation --out runs/ablation [--seeds 0 1 2]

What ends up there: summary.json, table.md and curves.png.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.demo import SFT_QUESTIONS, claim, read_json, step
from sari_jax.atomic import write_text
from sari_jax.data.records import read_records, write_records
from sari_jax.report.charts import Chart, Line
from sari_jax.report.curves import draw, new_figure, save_figure
from sari_jax.train.metrics import read_held_out

# Scored for difficulty; GRPO learns from those that are neither solved nor hopeless.
QUESTIONS, ATTEMPTS = 1600, 8
STEPS = 64  # of GRPO: one pass over what is left of them, or somewhat more
HELD_OUT, EVERY = 120, 16  # validation questions that GRPO is asked on the way, and steps between
TOKENS = "48"

# Arm -> the SFT that GRPO starts from ("" is the base model), the style of its answers, and the order of its questions.
GRPO = {
    "GRPO without SFT": ("", "structured", "easy_to_hard"),
    "structured, easy to hard": ("structured", "structured", "easy_to_hard"),
    "structured, random": ("structured", "structured", "random"),
    "structured, hard to easy": ("structured", "structured", "hard_to_easy"),
    "free, easy to hard": ("free", "free", "easy_to_hard"),
    "free, random": ("free", "free", "random"),
    "free, hard to easy": ("free", "free", "hard_to_easy"),
    "answers alone, easy to hard": ("direct", "direct", "easy_to_hard"),
}
STYLES = {"structured": "structured", "free": "free", "direct": "answers alone"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        one_seed(args.out / f"seed-{seed}", str(seed))
    summary = summarise(args.out, args.seeds)
    write_text(args.out / "summary.json", json.dumps(summary, indent=2) + "\n")
    write_text(args.out / "table.md", table(summary))
    draw_curves(summary, args.out / "curves.png")
    print(table(summary), file=sys.stderr)
    return 0


def one_seed(out: Path, seed: str) -> None:
    out.mkdir(exist_ok=True)
    path = lambda name: str(out / name)  # noqa: E731
    step("model", "assemble", "nano", "--out", path("base"), "--seed", seed, makes=path("base"))
    claim(out, seed)
    step(
        "data", "build", "starter", "--out", path("starter"), "--seed", seed, makes=path("starter")
    )
    evaluate(out, "base", "structured")
    for style in STYLES:
        train(out, f"sft-{style}", "sft", "base", "starter/train.jsonl", style, seed)
        evaluate(out, f"sft-{style}", style)
    # One measure of difficulty for all arms, so that all learn from the same questions.
    train_records = read_records(path("starter/train.jsonl"))
    write_records(path("unscored.jsonl"), train_records[SFT_QUESTIONS : SFT_QUESTIONS + QUESTIONS])
    score = ["--attempts", str(ATTEMPTS), "--rows", "32", "--seed", seed, "--max-tokens", TOKENS]
    data = ["--data", path("unscored.jsonl"), "--out", path("scored.jsonl")]
    step("score", "--model", path("sft-structured"), *data, *score, makes=path("scored.jsonl"))
    for place, (start, style, order) in enumerate(GRPO.values()):
        model = f"sft-{start}" if start else "base"
        more = [f"--config.data.order={order}", f"--config.steps={STEPS}"]
        more += [f"--config.held_out.data={out / 'starter/validation.jsonl'}"]
        more += [f"--config.held_out.limit={HELD_OUT}", f"--config.held_out.every={EVERY}"]
        train(out, f"grpo-{place}", "grpo", model, "scored.jsonl", style, seed, *more)
        evaluate(out, f"grpo-{place}", style)


def train(
    out: Path, name: str, stage: str, model: str, data: str, style: str, seed: str, *more: str
) -> None:
    """Trains, and exports under that name."""
    changes = {
        "model.path": out / model,
        "data.train": out / data,
        "data.style": style,
        "seed": seed,
        "samples_every": 60,
    }
    overrides = [f"--config.{key}={value}" for key, value in changes.items()]
    workdir = str(out / f"run-{name}")
    made = str(out / name)
    if not Path(made).exists():
        step(
            *("train", "--config", f"configs/{stage}_nano.py", "--workdir", workdir),
            *(*overrides, *more),
        )
        step("export", "--workdir", workdir, "--out", made)


def evaluate(out: Path, name: str, style: str) -> None:
    results = str(out / f"eval-{name}")
    words = ["--benchmark", str(out / "starter/test.jsonl"), "--model", str(out / name)]
    options = ["--rows", "60", "--max-tokens", TOKENS, "--style", style]
    step("eval", *words, "--out", results, *options, makes=results)


def summarise(out: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Each arm's accuracy on held-out questions, seed by seed, and GRPO's on validation questions after its steps."""
    arms = {"base": "base"} | {f"SFT, {told}": f"sft-{style}" for style, told in STYLES.items()}
    arms |= {arm: f"grpo-{place}" for place, arm in enumerate(GRPO)}
    summary: dict[str, Any] = {"seeds": list(seeds), "arms": {}}
    for arm, name in arms.items():
        folders = [out / f"seed-{seed}" for seed in seeds]
        scores = [read_json(str(folder / f"eval-{name}/scores.json")) for folder in folders]
        accuracies = [score["accuracy"]["all"] for score in scores]
        told = {"accuracy": accuracies, **mean_and_error(accuracies)}
        if name.startswith("grpo"):
            curves = [read_held_out(folder / f"run-{name}") for folder in folders]
            told["steps"] = [row["step"] for row in curves[0]]
            told["held_out"] = [[row["accuracy"] for row in curve] for curve in curves]
        summary["arms"][arm] = told
    test = read_records(out / f"seed-{seeds[0]}" / "starter/test.jsonl")
    summary["chance"] = sum(1 / len(record.choices) for record in test) / len(test)
    return summary


def mean_and_error(values: Sequence[float]) -> dict[str, float]:
    """The mean over seeds and its standard error."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return {"mean": float(np.mean(values)), "error": spread / len(values) ** 0.5}


def table(summary: dict[str, Any]) -> str:
    """For Markdown: mean and standard error over seeds; of GRPO's curve too its mean over the run."""
    seeds = ", ".join(map(str, summary["seeds"]))
    rows = [
        f"| arm | accuracy, seeds {seeds} | mean | standard error | on the way |",
        "|---|---|---|---|---|",
    ]
    for arm, told in summary["arms"].items():
        each = ", ".join(f"{value:.3f}" for value in told["accuracy"])
        way = ""
        if "held_out" in told:
            way = f"{np.mean([np.mean(curve[1:]) for curve in told['held_out']]):.3f}"
        rows.append(f"| {arm} | {each} | {told['mean']:.3f} | {told['error']:.3f} | {way} |")
    return "\n".join([*rows, "", f"Chance: {summary['chance']:.3f}.", ""])


def draw_curves(summary: dict[str, Any], out: Path) -> None:
    """Accuracy on validation questions over GRPO's steps, the mean over seeds."""
    figure = new_figure(1, 2)
    for axes, style in zip(figure.axes, ("structured", "free"), strict=True):
        lines = []
        for arm, told in summary["arms"].items():
            if arm.startswith(style):
                values = np.mean(told["held_out"], axis=0)
                steps = np.array(told["steps"], float)
                lines.append(Line(arm, steps, values, place=len(lines)))
        title = f"GRPO after SFT, {style} chains"
        draw(axes, Chart(style, title, "validation accuracy", tuple(lines)))
    save_figure(figure, out)


if __name__ == "__main__":
    sys.exit(main())
