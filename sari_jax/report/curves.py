"""Charts as pictures for papers, drawn with Matplotlib."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from sari_jax.report.charts import CURVES, Bars, Chart, line

# Names may hold a dollar sign, which Matplotlib would read as a formula.
matplotlib.rcParams["text.parse_math"] = False
BLUE, ORANGE, GREEN, GREY = "#1f6fb4", "#e07b27", "#3a9a5b", "#8a8a8a"
COLOURS = (BLUE, ORANGE, GREEN, "#b5548f", "#7d66c9", "#a68b00", "#c94f4a", "#3f95a6")


def plot_charts(charts: Sequence[Chart], folder: Path) -> list[Path]:
    """Draws each chart into a PNG of its own, named after the chart's key."""
    paths = []
    for chart in tqdm(charts, desc="pictures", disable=None):
        figure = new_figure(1, 1)
        draw(figure.axes[0], chart)
        paths.append(Path(folder) / f"{chart.key}.png")
        save_figure(figure, paths[-1])
    return paths


def plot_demo(
    summary: Mapping[str, Any],
    sft_metrics: Sequence[Mapping[str, float]],
    grpo_metrics: Sequence[Mapping[str, float]],
    out: Path,
) -> None:
    """Draws SFT's loss, GRPO's reward and accuracy, and the held-out accuracy of each stage into a PNG.

    Args:
        summary: `accuracy`, stage -> fraction, in the order to draw (base, sft, grpo); `chance`, a fraction; and
            optionally `interval`, stage -> [low, high].
    """
    figure = new_figure(2, 2)
    loss, reward, rates, bars = figure.axes
    draw(loss, _curve(sft_metrics, "SFT: loss", "loss"))
    draw(reward, _curve(grpo_metrics, "GRPO: reward", "reward"))
    draw(rates, _curve(grpo_metrics, "GRPO: accuracy and format", "accuracy", "format"))
    draw(bars, _stage_bars(summary))
    chance = summary["chance"]
    bars.axhline(chance, color="black", ls="--", lw=1, label=f"chance {chance:.1%}")
    bars.legend(fontsize=10, frameon=False, loc="upper left")
    save_figure(figure, out)


def _curve(metrics: Sequence[Mapping[str, float]], title: str, *names: str) -> Chart:
    lines = [line(metrics, name, name) for name in names]
    present = tuple(dataclasses.replace(one, place=place) for place, one in enumerate(lines) if one)
    _, unit, fractions = CURVES[names[0]]
    return Chart(key=names[0], title=title, unit=unit, lines=present, rates=fractions)


def _stage_bars(summary: Mapping[str, Any]) -> Chart:
    """The held-out accuracy of each stage, with its interval where the summary has one."""
    intervals = summary.get("interval", {})
    accuracy = summary["accuracy"]
    bars = Bars(
        name="accuracy",
        values=list(accuracy.values()),
        intervals=[intervals.get(stage) for stage in accuracy],
    )
    labels = tuple(stage.upper() if stage != "base" else "Base" for stage in accuracy)
    title = "Accuracy on held-out questions"
    return Chart(key="accuracy", title=title, unit="", labels=labels, bars=(bars,), rates=True)


def draw(axes: Axes, chart: Chart) -> None:
    """Draws a chart: lines with light dots for the unsmoothed values, stacked areas, or bars with intervals."""
    axes.set_title(chart.title, fontsize=12)
    axes.set_ylabel(chart.unit, fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if chart.lines:
        axes.set_xlabel("Step", fontsize=11)
        _draw_lines(axes, chart)
    elif chart.bars:
        _draw_bars(axes, chart)
    else:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=GREY)
        return
    if chart.rates:
        axes.set_ylim(-0.03, 1.08 if chart.bars else 1.03)
    if len(chart.lines) > 1:
        axes.legend(fontsize=9, frameon=False)
    if len(chart.bars) > 1:
        # Beside the bars: between them is no room for a legend.
        axes.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _draw_lines(axes: Axes, chart: Chart) -> None:
    if chart.stacked:
        steps = chart.lines[0].steps
        values = [np.interp(steps, one.steps, one.smooth) for one in chart.lines]
        names = [one.name for one in chart.lines]
        colours = [COLOURS[one.place % len(COLOURS)] for one in chart.lines]
        axes.stackplot(steps, values, labels=names, colors=colours)
        return
    for one in chart.lines:
        colour = COLOURS[one.place % len(COLOURS)]
        if one.window > 1:
            axes.plot(one.steps, one.values, ".", color=colour, alpha=0.25, markersize=4)
        mark = "o" if len(one.steps) < 20 else ""
        axes.plot(one.steps, one.smooth, color=colour, lw=2, marker=mark, ms=4, label=one.name)


def _draw_bars(axes: Axes, chart: Chart) -> None:
    count = len(chart.bars)
    width = 0.8 / count
    for place, bars in enumerate(chart.bars):
        shown = [(i, value) for i, value in enumerate(bars.values) if value is not None]
        for i, value in shown:
            x = i + (place - (count - 1) / 2) * width
            colour = COLOURS[bars.place % len(COLOURS)]
            label = bars.name if (i, value) == shown[0] else None
            axes.bar(x, value, width=0.9 * width, color=colour, label=label)
            top = value
            if bars.intervals and (interval := bars.intervals[i]):
                axes.vlines(x, *interval, color="black", linewidth=1.2)
                top = interval[1]
            if count == 1 and chart.rates and len(chart.labels) <= 6:
                axes.annotate(
                    f"{value:.1%}", (x, top), (0, 3), textcoords="offset points", ha="center"
                )
    names = [label if len(label) <= 24 else f"{label[:23]}…" for label in chart.labels]
    long = max(map(len, names)) * len(names) > 40
    turned = {"rotation": 30, "ha": "right"} if long else {}
    axes.set_xticks(range(len(names)), names, fontsize=9 if long else 11, **turned)


def new_figure(rows: int, columns: int) -> Figure:
    figure = Figure(figsize=(5.2 * columns, 3.6 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.subplots(rows, columns)
    return figure


def save_figure(figure: Figure, out: Path) -> None:
    """Writes a PNG to a temporary name and renames it, so that nobody reads half a picture."""
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.part")
    figure.savefig(aside, format="png")
    os.replace(aside, out)
