"""Pictures of what a run learnt."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sari_jax.errors import InputError

BLUE, ORANGE, GREEN, GREY = "#1f6fb4", "#e07b27", "#3a9a5b", "#8a8a8a"


def plot_run(metrics: Sequence[Mapping[str, float]], out: Path) -> None:
    """Draws a run's curves into a PNG: reward and accuracy for GRPO, loss for SFT.

    Args:
        metrics: a run's rows, each with `step` and whichever of `loss`, `reward`, `accuracy`, `format` there are.

    Raises:
        InputError: no row holds any of these.
    """
    present = [
        name for name in ("reward", "accuracy", "format", "loss") if _series(metrics, name)[0].size
    ]
    if not present:
        raise InputError(
            "no metrics to draw: no row holds a loss, reward or accuracy; train for a step first"
        )
    rates = [name for name in ("accuracy", "format") if name in present]
    scalar = "reward" if "reward" in present else "loss" if "loss" in present else None
    figure = new_figure(1, bool(scalar) + bool(rates))
    axes = iter(figure.axes)
    if scalar:
        _curves(next(axes), metrics, {scalar: BLUE}, scalar.capitalize())
    if rates:
        _curves(
            next(axes),
            metrics,
            {"accuracy": ORANGE, "format": GREEN},
            "Fraction of completions",
            rates=True,
        )
    save_figure(figure, out)


def plot_demo(
    summary: Mapping[str, Any],
    sft_metrics: Sequence[Mapping[str, float]],
    grpo_metrics: Sequence[Mapping[str, float]],
    out: Path,
) -> None:
    """Draws SFT's loss, GRPO's reward and accuracy, and the held-out accuracy of each stage into a PNG.

    Args:
        summary: `accuracy`, stage -> fraction, in the order to draw (base, sft, grpo); `chance`, a fraction; and,
            if there, `interval`, stage -> [low, high].
    """
    figure = new_figure(2, 2)
    loss, reward, rates, bars = figure.axes
    _curves(loss, sft_metrics, {"loss": BLUE}, "SFT: loss")
    _curves(reward, grpo_metrics, {"reward": BLUE}, "GRPO: reward")
    _curves(
        rates,
        grpo_metrics,
        {"accuracy": ORANGE, "format": GREEN},
        "GRPO: fraction of completions",
        rates=True,
    )
    _bars(bars, summary)
    save_figure(figure, out)


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Each value [N] with the `window` - 1 before it, fewer at the beginning, averaged: nothing from the future."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _series(metrics: Sequence[Mapping[str, float]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the rows that hold a finite one."""
    points = [(row["step"], row[name]) for row in metrics if np.isfinite(row.get(name, np.nan))]
    steps, values = np.array(points, float).reshape(-1, 2).T
    return steps, values


def new_figure(rows: int, columns: int) -> Figure:
    figure = Figure(figsize=(5.2 * columns, 3.6 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.subplots(rows, columns)
    return figure


def _curves(
    axes: Axes,
    metrics: Sequence[Mapping[str, float]],
    colours: Mapping[str, str],
    title: str,
    *,
    rates: bool = False,
) -> None:
    """Light dots for the steps, a line for their moving average over a twentieth of the run."""
    drawn = 0
    for name, colour in colours.items():
        steps, values = _series(metrics, name)
        if not steps.size:
            continue
        window = max(1, len(steps) // 20)
        axes.plot(steps, values, ".", color=colour, alpha=0.25, markersize=4)
        label = f"{name}, mean of {window} steps" if window > 1 else name
        axes.plot(steps, moving_average(values, window), color=colour, linewidth=2, label=label)
        drawn += 1
    axes.set_title(title, fontsize=12)
    axes.set_xlabel("Step", fontsize=11)
    if rates:
        axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if drawn:
        axes.legend(fontsize=10, frameon=False)
    else:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=GREY)


def _bars(axes: Axes, summary: Mapping[str, Any]) -> None:
    accuracy, intervals = summary["accuracy"], summary.get("interval", {})
    colours = [GREY, BLUE, ORANGE, GREEN]
    for i, (stage, value) in enumerate(accuracy.items()):
        axes.bar(i, value, width=0.6, color=colours[i % len(colours)])
        top = value
        if stage in intervals:
            low, top = intervals[stage]
            axes.vlines(i, low, top, color="black", linewidth=1.2)
        axes.annotate(
            f"{value:.1%}", (i, top), (0, 3), textcoords="offset points", ha="center", fontsize=11
        )
    axes.axhline(
        summary["chance"],
        color="black",
        linestyle="--",
        linewidth=1,
        label=f"chance {summary['chance']:.1%}",
    )
    axes.set_xticks(
        range(len(accuracy)), [stage.upper() if stage != "base" else "Base" for stage in accuracy]
    )
    axes.tick_params(axis="x", labelsize=11)
    axes.set_ylim(0, 1.1)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_title("Accuracy on held-out questions", fontsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=10, frameon=False, loc="upper left")


def save_figure(figure: Figure, out: Path) -> None:
    """Beside, then renamed: a reader never meets half a picture."""
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.part")
    figure.savefig(aside, format="png")
    os.replace(aside, out)
