"""The paper's comparisons in miniature: does warm-up stabilise, structure generalise, and a curriculum help?

These arms run with every seed: the base model; GRPO without SFT; SFT alone, on structured chains, on free chains and on
answers alone; SFT followed by GRPO, structured and free, each from easy to hard, at random and from hard to easy; and
SFT followed by GRPO without any chain (implicit reasoning), from easy to hard. All arms train on the starter corpus and
answer its held-out questions, whose soundfonts, voices and recordings are not in the training data. nano runs all arms.
smol, which trains adapters, runs the main ones.

Every step is a command that a user could type; the same command goes on where it stopped. Settings are those of
configs/{sft,grpo}_{nano,smol}.py but for GRPO's steps, style, order and seed: ours, not the paper's. For all arms of a
seed, one model decides which questions GRPO learns from and in which order: the model after SFT on structured chains.

    python -m experiments.sari_ablation --out runs/ablation [--size smol] [--seeds 0 1 2]

It leaves summary.json, table.md and curves.png.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.commands import begin, on_the_way, read_json, train
from experiments.two_stages import Size, chance, config_of, examine, score, write_unscored
from sari_jax.atomic import write_text
from sari_jax.data.records import read_records, write_records
from sari_jax.report.charts import Chart, Line
from sari_jax.report.curves import COLOURS, draw, new_figure, save_figure
from sari_jax.train.metrics import read_held_out

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
# A picture's panels, and the arms that each compares.
PANELS = {
    "GRPO after SFT, structured chains": tuple(GRPO)[1:4],
    "GRPO after SFT, free chains": tuple(GRPO)[4:7],
    "Warm-up, and explicit reasoning": (
        "structured, easy to hard",
        "answers alone, easy to hard",
        "GRPO without SFT",
    ),
}
STYLES = {"structured": "structured", "free": "free", "direct": "answers alone"}
# Pairs of arms behind the paper's findings: an arm, and the one that it is compared with, seed by seed.
COMPARED = (
    ("structured, easy to hard", "SFT, structured"),
    ("free, easy to hard", "SFT, free"),
    ("answers alone, easy to hard", "SFT, answers alone"),
    ("structured, easy to hard", "GRPO without SFT"),
    ("SFT, structured", "SFT, free"),
    ("structured, easy to hard", "free, easy to hard"),
    ("structured, easy to hard", "structured, random"),
    ("structured, easy to hard", "structured, hard to easy"),
    ("free, easy to hard", "free, random"),
    ("free, easy to hard", "free, hard to easy"),
    ("SFT, structured", "SFT, answers alone"),
    ("structured, easy to hard", "answers alone, easy to hard"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """The arms of one model, and how much each trains.

    Attributes:
        each: the data of every arm.
        steps: steps of GRPO.
        every: steps of GRPO between evaluations.
        arms: names in `GRPO`.
    """

    each: Size
    steps: int
    every: int
    arms: tuple[str, ...]


MAIN = tuple(GRPO)[:3] + ("free, easy to hard",)
NANO = Size(questions=1600, attempts=8, held_out=120, test=600, tokens=48, rows=(32, 60))
SMOL = Size(questions=120, attempts=4, held_out=60, test=240, tokens=80, rows=(16, 20))
# With nano, one seed of all arms takes about 35 minutes of one core.
SIZES = {
    "nano": Comparison(each=NANO, steps=64, every=16, arms=tuple(GRPO)),
    "smol": Comparison(each=SMOL, steps=20, every=10, arms=MAIN),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="nano")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        one_seed(args.size, args.out / f"seed-{seed}", seed)
    summary = summarise(args.size, args.out, args.seeds)
    write_text(args.out / "summary.json", json.dumps(summary, indent=2) + "\n")
    write_text(args.out / "table.md", table(summary))
    draw_curves(summary, args.out / "curves.png")
    print(table(summary), file=sys.stderr)
    return 0


def one_seed(model: str, out: Path, seed: int) -> None:
    """Runs all arms of one seed."""
    size = SIZES[model]
    begin(out, model, seed, **dataclasses.asdict(size))
    write_unscored(out, config_of("sft", model), size.each)
    test = read_records(out / "starter/test.jsonl")
    write_records(out / "test.jsonl", test[: size.each.test])

    def run(name: str, stage: str, start: str, data: str, style: str, **more: object) -> None:
        more |= {"data.style": style, "seed": seed, "samples_every": 60}
        train(out, name, config_of(stage, model), start, data, **more)
        examine(out, name, size.each, style)

    examine(out, "base", size.each)
    for style in styles(size):
        run(f"sft-{style}", "sft", "base", "starter/train.jsonl", style)
    # All arms use one measure of difficulty, so that they learn from the same questions.
    score(out, "sft-structured", seed, size.each)
    for arm in size.arms:
        start, style, order = GRPO[arm]
        more = {"data.order": order, "steps": size.steps}
        more |= on_the_way(out, size.each.held_out, size.every)
        start = f"sft-{start}" if start else "base"
        run(folder(arm), "grpo", start, "scored.jsonl", style, **more)


def styles(size: Comparison) -> list[str]:
    """Returns the styles that SFT has to teach, since an arm starts from them."""
    starts = {GRPO[arm][0] for arm in size.arms}
    return [style for style in STYLES if style in starts]


def folder(arm: str) -> str:
    return f"grpo-{arm.replace(',', '').replace(' ', '-')}"


def summarise(name: str, out: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Reads each arm's test accuracy of every seed, and GRPO's curves on validation questions."""
    size = SIZES[name]
    arms = {"base": "base"}
    arms |= {f"SFT, {STYLES[style]}": f"sft-{style}" for style in styles(size)}
    arms |= {arm: folder(arm) for arm in size.arms}
    summary: dict[str, Any] = {"size": name, "seeds": list(seeds), "arms": {}}
    folders = [out / f"seed-{seed}" for seed in seeds]
    for arm, model in arms.items():
        scores = [read_json(place / f"eval-{model}/scores.json") for place in folders]
        accuracies = [score["accuracy"]["all"] for score in scores]
        result = {"accuracy": accuracies, **mean_and_error(accuracies)}
        if model.startswith("grpo"):
            curves = [read_held_out(place / f"run-{model}") for place in folders]
            result["steps"] = [row["step"] for row in curves[0]]
            result["held_out"] = [[row["accuracy"] for row in curve] for curve in curves]
        summary["arms"][arm] = result
    summary["differences"] = differences(summary["arms"])
    summary["test_examples"] = len(read_records(folders[0] / "test.jsonl"))
    summary["chance"] = chance(folders[0])
    return summary


def differences(arms: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the differences of all pairs in `COMPARED` whose arms were run.

    They are of the test accuracy, and of the mean validation accuracy during training.
    """
    found = []
    for arm, other in COMPARED:
        if not {arm, other} <= arms.keys():
            continue
        one, another = arms[arm], arms[other]
        difference = {"arm": arm, "against": other}
        difference["accuracy"] = mean_and_error(np.subtract(one["accuracy"], another["accuracy"]))
        if "held_out" in one and "held_out" in another:
            curves = np.subtract(on_average(one), on_average(another))
            difference["on_the_way"] = mean_and_error(curves)
        found.append(difference)
    return found


def on_average(arm: dict[str, Any]) -> list[float]:
    """Returns the mean of each seed's validation curve, without its value before training."""
    return [float(np.mean(curve[1:])) for curve in arm["held_out"]]


def mean_and_error(values: Sequence[float]) -> dict[str, float]:
    """Returns the mean over seeds and its standard error, None for one seed."""
    spread = float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "error": spread}


def table(summary: dict[str, Any]) -> str:
    """Formats the arms and their differences as Markdown tables, with standard errors over seeds."""
    seeds = ", ".join(map(str, summary["seeds"]))
    rows = [
        f"| arm | accuracy, seeds {seeds} | mean | standard error | on the way |",
        "|---|---|---|---|---|",
    ]
    for arm, result in summary["arms"].items():
        each = ", ".join(f"{value:.3f}" for value in result["accuracy"])
        error = "" if result["error"] is None else f"{result['error']:.3f}"
        way = f"{np.mean(on_average(result)):.3f}" if "held_out" in result else ""
        rows.append(f"| {arm} | {each} | {result['mean']:.3f} | {error} | {way} |")
    chance = f"Chance: {summary['chance']:.3f}; {summary['test_examples']} questions."
    rows += ["", chance, "", "| arm | against | accuracy | on the way |", "|---|---|---|---|"]
    for difference in summary["differences"]:
        cells = [difference["arm"], difference["against"]]
        for figure in ("accuracy", "on_the_way"):
            cells.append(with_error(difference[figure]) if figure in difference else "")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, ""])


def with_error(figure: dict[str, float | None]) -> str:
    error = "" if figure["error"] is None else f" ({figure['error']:.3f})"
    return f"{figure['mean']:+.3f}{error}"


def draw_curves(summary: dict[str, Any], out: Path) -> None:
    """Draws the validation accuracy over GRPO's steps: the mean over seeds, and each seed as a thin line."""
    figure = new_figure(1, len(PANELS))
    for axes, (title, arms) in zip(figure.axes, PANELS.items(), strict=True):
        lines = []
        for arm in (arm for arm in arms if arm in summary["arms"]):
            result = summary["arms"][arm]
            steps = np.array(result["steps"], float)
            place = len(lines)
            mean = np.mean(result["held_out"], axis=0)
            lines.append(Line(name=arm, steps=steps, values=mean, place=place))
            for curve in result["held_out"]:
                axes.plot(steps, curve, color=COLOURS[place], lw=0.8, alpha=0.35)
        unit = "validation accuracy"
        draw(axes, Chart(key=title, title=title, unit=unit, lines=tuple(lines)))
    save_figure(figure, out)


if __name__ == "__main__":
    sys.exit(main())
