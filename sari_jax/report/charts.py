"""What is drawn of an experiment, apart from how: a page draws it with Plotly, a picture with Matplotlib."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sari_jax.evaluate.scores import bootstrap_interval
from sari_jax.report.experiment import Experiment, Result, Run

POINTS = 1000  # of a line: longer runs are averaged down to as many
GROUPS = ("task", "kind", "difficulty")  # of a run's own questions
COMPILES = 5.0  # times the median step: a step that takes longer has compiled a program
LEVELS = ("0", "to 1/4", "to 1/2", "to 3/4", "below 1", "1")
PARTS = ("data", "rollout", "reward", "reference", "sample", "update")

# Metric -> title, axis, and whether it is a fraction.
CURVES = {
    "reward": ("Reward", "mean of completions", False),
    "accuracy": ("Accuracy in training", "fraction of completions", True),
    "format": ("Format", "fraction of completions", True),
    "loss": ("Loss", "", False),
    "kl": ("KL to the reference", "nats per token", False),
    "entropy": ("Entropy", "nats per token", False),
    "completion_tokens": ("Completion length", "tokens", False),
    "zero_spread": ("Groups without spread", "fraction of groups", True),
    "gradient_norm": ("Gradient norm", "before clipping", False),
    "learning_rate": ("Learning rate", "", False),
}


@dataclasses.dataclass(frozen=True)
class Line:
    """Values over steps, and their mean over the last `window` of them.

    Attributes:
        place: which colour it has: a run has the same in every chart.
    """

    name: str
    steps: Float[np.ndarray, "N"]
    values: Float[np.ndarray, "N"]
    window: int = 1
    place: int = 0

    @property
    def smooth(self) -> Float[np.ndarray, "N"]:
        return moving_average(self.values, self.window)


@dataclasses.dataclass(frozen=True)
class Bars:
    """A value for each label; and where they are known, [low, high] of each.

    Attributes:
        place: which colour they have.
    """

    name: str
    values: list[float | None]
    intervals: list[list[float] | None] = dataclasses.field(default_factory=list)
    place: int = 0


@dataclasses.dataclass(frozen=True)
class Chart:
    """Lines over steps, or bars over labels.

    Attributes:
        key: its name among an experiment's charts, fit for a file's name.
        rates: whether values are fractions.
        stacked: lines on top of each other.
    """

    key: str
    title: str
    unit: str
    lines: tuple[Line, ...] = ()
    labels: tuple[str, ...] = ()
    bars: tuple[Bars, ...] = ()
    rates: bool = False
    stacked: bool = False

    @property
    def crowded(self) -> bool:
        """Whether it needs room for its labels."""
        return len(self.labels) * max(len(self.bars), 1) > 20 or len(self.labels) > 8

    @property
    def summary(self) -> str:
        """For those who cannot see it."""
        ends = [
            f"{line.name} from {line.smooth[0]:.3g} at step {line.steps[0]:.0f} to {line.smooth[-1]:.3g} at step"
            f" {line.steps[-1]:.0f}"
            for line in self.lines
        ]
        for bars in self.bars:
            pairs = zip(self.labels, bars.values, strict=True)
            told = ", ".join(f"{label} {value:.3g}" for label, value in pairs if value is not None)
            ends.append(f"{bars.name}: {told}")
        return f"{self.title}. {'; '.join(ends)}"


def make_charts(experiment: Experiment) -> list[Chart]:
    """All that an experiment has numbers for."""
    runs = experiment.runs
    charts = [_held_out(runs, "accuracy", "Held-out accuracy")]
    charts += [_curve(runs, name) for name in CURVES]
    charts += [_times(run, place) for place, run in enumerate(runs)]
    charts += [_pass_rates(run, place) for place, run in enumerate(runs)]
    charts += _by_category(experiment)
    return [chart for chart in charts if chart.lines or chart.bars]


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Each value [N] with the `window` - 1 before it, fewer at the beginning, averaged: nothing from the future."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def line(rows: Sequence[Mapping[str, Any]], metric: str, name: str) -> Line | None:
    """A metric of a run's rows, smoothed over a twentieth of them; None if no row holds a finite one."""
    points = [(row["step"], row[metric]) for row in rows if np.isfinite(row.get(metric, np.nan))]
    if not points:
        return None
    steps, values = np.array(points, float).T
    every = -(-len(steps) // POINTS)
    if every > 1:
        starts = np.arange(0, len(steps), every)
        counts = np.diff([*starts, len(steps)])
        steps = steps[np.append(starts[1:], len(steps)) - 1]
        values = np.add.reduceat(values, starts) / counts
    return Line(name, steps, values, max(1, len(steps) // 20))


def _curve(runs: Sequence[Run], metric: str) -> Chart:
    title, unit, rates = CURVES[metric]
    lines = _present([line(run.metrics, metric, run.name) for run in runs])
    if metric == "learning_rate":  # known, not measured
        lines = tuple(dataclasses.replace(one, window=1) for one in lines)
    return Chart(metric, title, unit, lines, rates=rates)


def _held_out(runs: Sequence[Run], metric: str, title: str) -> Chart:
    """Unsmoothed: there are few."""
    found = _present([line(run.held_out, metric, run.name) for run in runs])
    lines = tuple(dataclasses.replace(one, window=1) for one in found)
    return Chart(f"held_out_{metric}", title, "fraction of held-out questions", lines, rates=True)


def _times(run: Run, place: int) -> Chart:
    """Without the steps that compiled: a mean over twenty steps would spread their minutes over all of them."""
    timed = [row for row in run.metrics if "seconds" in row]
    usual = float(np.median([row["seconds"] for row in timed])) if timed else 0.0
    rows = [row for row in timed if row["seconds"] <= COMPILES * usual]
    lines = _present([line(rows, f"seconds_{part}", part) for part in PARTS])
    title = f"Seconds of a step, but for those that compiled: {run.name}"
    return Chart(f"seconds_{place}", title, "seconds", lines, stacked=True)


def _pass_rates(run: Run, place: int) -> Chart:
    before, after, told = before_and_after(run.questions)
    bars = (Bars(told, before), Bars("when last asked", after, place=1)) if sum(after) else ()
    title = f"Pass rates of the same questions: {run.name}"
    return Chart(f"pass_rates_{place}", title, "questions", labels=LEVELS, bars=bars)


def before_and_after(
    questions: Sequence[Mapping[str, Any]],
) -> tuple[list[float], list[float], str]:
    """Of the questions that the last quarter of a run asked, how many have a pass rate on each of `LEVELS`.

    Before, when the run first asked them, and after, when it asked them last: the same questions, as often each time.
    A curriculum's end is harder than its beginning. A run that asks none twice is compared with the base model's
    scores, by which its questions were chosen: with others of 0 or 1 left out, and from another number of attempts,
    rates spread from the middle to both ends even if nothing is learnt.
    """
    rows = [row for row in questions if "pass_rates" in row]
    last = max((row["step"] for row in rows), default=0)
    scored: dict[str, float | None] = {}
    first: dict[str, tuple[int, float]] = {}
    after: dict[str, tuple[int, float]] = {}
    for row in rows:
        known = row.get("scored") or [None] * len(row["ids"])
        for name, rate, old in zip(row["ids"], row["pass_rates"], known, strict=True):
            scored[name] = old
            first.setdefault(name, (row["step"], rate))
            after[name] = (row["step"], rate)
    late = [name for name, (step, _) in after.items() if step > 0.75 * last]
    pairs = [(first[name][1], after[name][1]) for name in late if first[name][0] < after[name][0]]
    told = "when first asked"
    if not pairs:
        pairs = [(scored[name], after[name][1]) for name in late if scored[name] is not None]
        told = "as scored, by which they were chosen"
    levels = [np.bincount([_level(r) for r in side], minlength=6) for side in zip(*pairs)]  # noqa: B905
    before, now = levels if levels else (np.zeros(6), np.zeros(6))
    return before.tolist(), now.tolist(), told


def _level(rate: float) -> int:
    """Of `LEVELS`."""
    return 0 if rate <= 0 else 5 if rate >= 1 else 1 + int(np.searchsorted((0.25, 0.5, 0.75), rate))


Category = tuple[float, list[float] | None, int]  # accuracy, interval, rows


def _by_category(experiment: Experiment) -> list[Chart]:
    """Accuracy by category, a chart for each set of questions: different questions are not put side by side."""
    sets: dict[tuple[str, str], list[tuple[str, int, dict[str, Category]]]] = {}
    for place, run in enumerate(experiment.runs):
        data = Path(str(run.settings.get("held_out.data", ""))).stem
        for group in GROUPS:
            by = _last_answers(run, group)
            sets.setdefault((group, f"{data}, held out"), []).append((run.name, place, by))
    for place, result in enumerate(experiment.results, len(experiment.runs)):
        for group in result.scores.get("by") or {}:
            by = _scored(result, group)
            sets.setdefault((group, result.benchmark), []).append((result.name, place, by))
    present = [item for item in sorted(sets.items()) if any(by for _, _, by in item[1])]
    return [
        _by(group, asked, found, number) for number, ((group, asked), found) in enumerate(present)
    ]


def _by(
    group: str, asked: str, found: Sequence[tuple[str, int, dict[str, Category]]], number: int
) -> Chart:
    values = list(dict.fromkeys(value for _, _, by in found for value in by))
    bars = tuple(
        Bars(
            name,
            [by[value][0] if value in by else None for value in values],
            [by[value][1] if value in by else None for value in values],
            place,
        )
        for name, place, by in found
        if by
    )
    counts = {value: {by[value][2] for _, _, by in found if value in by} for value in values}
    labels = tuple(f"{value} ({'/'.join(map(str, sorted(counts[value])))})" for value in values)
    title = f"{asked}: accuracy by {group}, with 95 % intervals and rows"
    return Chart(f"by_{number}", title, "fraction right", labels=labels, bars=bars, rates=True)


def _last_answers(run: Run, group: str) -> dict[str, Category]:
    rows = [row for row in run.samples if row["split"] == "held_out" and group in row]
    last = max((row["step"] for row in rows), default=0)
    right: dict[str, list[float]] = {}
    for row in rows:
        if row["step"] == last:
            right.setdefault(row[group], []).append(row["completions"][0]["accuracy"])
    return {
        value: (float(np.mean(each)), bootstrap_interval(np.array(each) > 0), len(each))
        for value, each in sorted(right.items())
    }


def _scored(result: Result, group: str) -> dict[str, Category]:
    by = result.scores["by"][group]
    return {value: (row["accuracy"], row.get("interval"), row["rows"]) for value, row in by.items()}


def _present(lines: Sequence[Line | None]) -> tuple[Line, ...]:
    """Those that there are, each in the colour of its place among all."""
    return tuple(
        dataclasses.replace(one, place=place) for place, one in enumerate(lines) if one is not None
    )
