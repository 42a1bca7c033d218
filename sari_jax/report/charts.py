"""The charts of an experiment as plain data: the page draws them with Plotly, pictures use Matplotlib."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from sari_jax.evaluate.scores import bootstrap_interval
from sari_jax.report.experiment import Experiment, Result, Run

# The most points of a line: longer runs are averaged down to as many.
POINTS = 1000
# Fields of a run's questions by which held-out accuracy is broken down.
GROUPS = ("task", "kind", "difficulty")
# A step that takes longer than this many times the median step has compiled a program.
COMPILES = 5.0
# Labels of the bins of pass rates.
LEVELS = ("0", "to 1/4", "to 1/2", "to 3/4", "below 1", "1")
# Phases of a step, in the order of the legend: the laps of `train.grpo` and `train.sft`, and reading data.
PARTS = ("data", "generate", "grade", "resample", "score", "sample", "update")

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """Values over steps, smoothed over the last `window` of them.

    Attributes:
        place: index of the line's colour. A run has the same colour in every chart.
    """

    name: str
    steps: Float[np.ndarray, "N"]
    values: Float[np.ndarray, "N"]
    window: int = 1
    place: int = 0

    @property
    def smooth(self) -> Float[np.ndarray, "N"]:
        return moving_average(self.values, self.window)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bars:
    """One value per label.

    Attributes:
        values: None where a label has no value.
        intervals: [low, high] of each value, None where it is unknown.
        place: index of the bars' colour.
    """

    name: str
    values: list[float | None]
    intervals: list[list[float] | None] = dataclasses.field(default_factory=list)
    place: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over steps, or bars over labels.

    Attributes:
        key: the chart's name within an experiment, usable as a file name.
        unit: title of the vertical axis.
        rates: whether the values are fractions.
        stacked: whether the lines are areas on top of each other.
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
        """Whether the labels need a chart of double width."""
        return len(self.labels) * max(len(self.bars), 1) > 20 or len(self.labels) > 8

    @property
    def summary(self) -> str:
        """The chart in words, for screen readers."""
        ends = [
            f"{line.name} from {line.smooth[0]:.3g} at step {line.steps[0]:.0f} to {line.smooth[-1]:.3g} at step"
            f" {line.steps[-1]:.0f}"
            for line in self.lines
        ]
        for bars in self.bars:
            pairs = zip(self.labels, bars.values, strict=True)
            listed = ", ".join(
                f"{label} {value:.3g}" for label, value in pairs if value is not None
            )
            ends.append(f"{bars.name}: {listed}")
        return f"{self.title}. {'; '.join(ends)}"


def make_charts(experiment: Experiment) -> list[Chart]:
    """Returns a chart for everything that the experiment has numbers for."""
    runs = experiment.runs
    charts = [_held_out(runs, "accuracy", "Held-out accuracy")]
    charts += [_curve(runs, name) for name in CURVES]
    charts += [_times(run, place) for place, run in enumerate(runs)]
    charts += [_pass_rates(run, place) for place, run in enumerate(runs)]
    charts += _by_category(experiment)
    return [chart for chart in charts if chart.lines or chart.bars]


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Returns the mean of each value [N] and the `window` - 1 values before it, of fewer at the beginning.

    No later value enters a mean.
    """
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def line(rows: Sequence[Mapping[str, Any]], metric: str, name: str) -> Line | None:
    """Returns one metric of a run's rows, smoothed over a twentieth of them.

    Returns None if no row holds a finite value of it.
    """
    points = [(row["step"], row[metric]) for row in rows if np.isfinite(row.get(metric, np.nan))]
    if not points:
        return None
    steps, values = np.array(points, float).T
    every = -(-len(steps) // POINTS)  # rounded up
    if every > 1:
        starts = np.arange(0, len(steps), every)
        counts = np.diff([*starts, len(steps)])
        steps = steps[np.append(starts[1:], len(steps)) - 1]
        values = np.add.reduceat(values, starts) / counts
    return Line(name=name, steps=steps, values=values, window=max(1, len(steps) // 20))


def _curve(runs: Sequence[Run], metric: str) -> Chart:
    title, unit, rates = CURVES[metric]
    lines = _present([line(run.metrics, metric, run.name) for run in runs])
    if metric == "learning_rate":
        # A schedule has no noise to smooth.
        lines = tuple(dataclasses.replace(one, window=1) for one in lines)
    return Chart(key=metric, title=title, unit=unit, lines=lines, rates=rates)


def _held_out(runs: Sequence[Run], metric: str, title: str) -> Chart:
    """The held-out figures as they are: there are too few to smooth."""
    found = _present([line(run.held_out, metric, run.name) for run in runs])
    lines = tuple(dataclasses.replace(one, window=1) for one in found)
    return Chart(
        key=f"held_out_{metric}",
        title=title,
        unit="fraction of held-out questions",
        lines=lines,
        rates=True,
    )


def _times(run: Run, place: int) -> Chart:
    """The seconds of each part of a step.

    Steps that compiled are left out: a mean over twenty steps would spread their minutes over all of them.
    """
    timed = [row for row in run.metrics if "seconds" in row]
    usual = float(np.median([row["seconds"] for row in timed])) if timed else 0.0
    rows = [row for row in timed if row["seconds"] <= COMPILES * usual]
    lines = _present([line(rows, f"seconds_{part}", part) for part in PARTS])
    title = f"Seconds per step, without steps that compiled: {run.name}"
    return Chart(key=f"seconds_{place}", title=title, unit="seconds", lines=lines, stacked=True)


def _pass_rates(run: Run, place: int) -> Chart:
    rates = before_and_after(run.questions)
    bars: tuple[Bars, ...] = ()
    if sum(rates.after):
        first = Bars(name=rates.before_is, values=rates.before)
        last = Bars(name="when last asked", values=rates.after, place=1)
        bars = (first, last)
    title = f"Pass rates of the same questions: {run.name}"
    key = f"pass_rates_{place}"
    return Chart(key=key, title=title, unit="questions", labels=LEVELS, bars=bars)


class PassRates(NamedTuple):
    """Counts of questions with a pass rate in each bin of `LEVELS`, at two times.

    Attributes:
        before, after: counts per bin.
        before_is: the description of `before` in the chart.
    """

    before: list[float]
    after: list[float]
    before_is: str


def before_and_after(questions: Sequence[Mapping[str, Any]]) -> PassRates:
    """Compares the pass rates of the questions that the last quarter of a run asked: at first, and at last.

    Both counts are over the same questions, because a curriculum's end is harder than its beginning. If the run asked
    no question twice, `before` holds the base model's scores, by which the run's questions were chosen. That comparison
    is biased: questions that scored 0 or 1 were left out, and the number of attempts differs, so the rates spread from
    the middle to both ends even if nothing is learnt.
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
    before_is = "when first asked"
    if not pairs:
        pairs = [(scored[name], after[name][1]) for name in late if scored[name] is not None]
        before_is = "scores of the base model"
    return PassRates(
        before=_counts([before for before, _ in pairs]),
        after=_counts([after for _, after in pairs]),
        before_is=before_is,
    )


def _counts(rates: Sequence[float]) -> list[float]:
    """Counts the rates in each bin of `LEVELS`."""
    levels = np.array([_level(rate) for rate in rates], int)
    return np.bincount(levels, minlength=len(LEVELS)).tolist()


def _level(rate: float) -> int:
    """Returns the index of a pass rate's bin in `LEVELS`."""
    return 0 if rate <= 0 else 5 if rate >= 1 else 1 + int(np.searchsorted((0.25, 0.5, 0.75), rate))


class Category(NamedTuple):
    """The accuracy on the questions of one category."""

    accuracy: float
    interval: list[float] | None
    rows: int


class Breakdown(NamedTuple):
    """The accuracy of one run or result by category.

    Attributes:
        place: index of its colour.
    """

    name: str
    place: int
    by: dict[str, Category]


def _by_category(experiment: Experiment) -> list[Chart]:
    """Returns a chart of accuracy by category for each set of questions.

    Different questions never stand side by side.
    """
    sets: dict[tuple[str, str], list[Breakdown]] = {}
    for place, run in enumerate(experiment.runs):
        data = Path(str(run.settings.get("held_out.data", ""))).stem
        for group in GROUPS:
            by = _last_answers(run, group)
            sets.setdefault((group, f"{data}, held out"), []).append(Breakdown(run.name, place, by))
    for place, result in enumerate(experiment.results, len(experiment.runs)):
        for group in result.scores.get("by") or {}:
            by = _scored(result, group)
            sets.setdefault((group, result.benchmark), []).append(Breakdown(result.name, place, by))
    present = [item for item in sorted(sets.items()) if any(each.by for each in item[1])]
    return [
        _category_chart(group, asked, found, f"by_{index}")
        for index, ((group, asked), found) in enumerate(present)
    ]


def _category_chart(group: str, asked: str, found: Sequence[Breakdown], key: str) -> Chart:
    values = list(dict.fromkeys(value for each in found for value in each.by))
    bars = tuple(
        Bars(
            name=each.name,
            values=[each.by[value].accuracy if value in each.by else None for value in values],
            intervals=[each.by[value].interval if value in each.by else None for value in values],
            place=each.place,
        )
        for each in found
        if each.by
    )
    counts = {
        value: {each.by[value].rows for each in found if value in each.by} for value in values
    }
    labels = tuple(f"{value} ({'/'.join(map(str, sorted(counts[value])))})" for value in values)
    title = f"{asked}: accuracy by {group}, with 95 % intervals and rows"
    unit = "fraction right"
    return Chart(key=key, title=title, unit=unit, labels=labels, bars=bars, rates=True)


def _last_answers(run: Run, group: str) -> dict[str, Category]:
    rows = [row for row in run.samples if row["split"] == "held_out" and group in row]
    last = max((row["step"] for row in rows), default=0)
    right: dict[str, list[float]] = {}
    for row in rows:
        if row["step"] == last:
            right.setdefault(row[group], []).append(row["completions"][0]["accuracy"])
    return {
        value: Category(
            accuracy=float(np.mean(each)),
            interval=bootstrap_interval(np.array(each) > 0),
            rows=len(each),
        )
        for value, each in sorted(right.items())
    }


def _scored(result: Result, group: str) -> dict[str, Category]:
    by = result.scores["by"][group]
    return {
        value: Category(row["accuracy"], row.get("interval"), row["rows"])
        for value, row in by.items()
    }


def _present(lines: Sequence[Line | None]) -> tuple[Line, ...]:
    """Drops missing lines; each of the others keeps the colour of its position among all."""
    return tuple(
        dataclasses.replace(one, place=place) for place, one in enumerate(lines) if one is not None
    )
