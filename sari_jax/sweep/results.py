"""The results of a sweep's runs: a table for people, one for machines, and a page."""

import csv
import dataclasses
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sari_jax.atomic import os_errors_as_input_error, write_text
from sari_jax.errors import one_line
from sari_jax.report.experiment import read_experiment
from sari_jax.report.page import LATEST, PageTooLarge, write_page
from sari_jax.sweep.plan import Planned
from sari_jax.train.metrics import read_held_out, read_metrics

FINISHED, STOPPED, RUNNING, BEGUN, WAITING, FAILED = STATES = (
    "finished",
    "stopped",
    "running",
    "begun",  # it has made steps, and may be running elsewhere
    "waiting",
    "failed",
)
COLUMNS = ("state", "steps", "reward", "accuracy", "loss", "held_out", "seconds", "reason")
# Runs are ranked by the first of these that all finished runs have. The smallest loss is the best.
FIGURES = ("held_out", "reward", "loss")
# Limit of the page's size.
MEGABYTES = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A run's row in the table.

    Attributes:
        reward, accuracy, loss: means over the last 20 steps; None if the stage has no such figure.
        held_out: accuracy of the last evaluation on held-out questions.
        seconds: time of all steps.
        reason: why it failed.
    """

    name: str
    state: str
    settings: dict[str, Any]
    steps: int = 0
    reward: float | None = None
    accuracy: float | None = None
    loss: float | None = None
    held_out: float | None = None
    seconds: float = 0.0
    reason: str = ""


def read_row(run: Planned, state: str, reason: str = "") -> Row:
    """Reads a run's row from its folder."""
    metrics = read_metrics(run.workdir)
    held_out = read_held_out(run.workdir)

    def late(name: str) -> float | None:
        values = [row[name] for row in metrics[-LATEST:] if name in row]
        return sum(values) / len(values) if values else None

    return Row(
        name=run.name,
        state=state,
        settings=run.settings,
        steps=int(metrics[-1]["step"]) if metrics else 0,
        **{name: late(name) for name in ("reward", "accuracy", "loss")},
        held_out=held_out[-1]["accuracy"] if held_out else None,
        seconds=sum(row.get("seconds", 0.0) for row in metrics),
        reason=reason,
    )


def ranked(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """Sorts finished runs by their figure, best first, then the others by state; returns the name of the figure too."""
    finished = [row for row in rows if row.state == FINISHED]
    figure = next((f for f in FIGURES if all(getattr(row, f) is not None for row in finished)), "")

    def worth(row: Row) -> tuple[int, float]:
        value = getattr(row, figure) if figure else None
        if value is None or math.isnan(value):
            value = -math.inf
        elif figure == "loss":
            value = -value
        return STATES.index(row.state), -value

    return sorted(rows, key=worth), figure if finished else ""


class Results:
    """The rows of a sweep's runs. Every change is written to the tables at once.

    Args:
        looking: whether the caller only looks and starts no run. Then a run that failed, and has made no step since,
            stays failed.

    Attributes:
        rows: rows by the names of the runs.
    """

    def __init__(self, out: Path, runs: Sequence[Planned] = (), looking: bool = False):
        self._out = out
        self._runs = {run.name: run for run in runs}
        failed = _failed(out) if looking else {}
        self.rows = {}
        for run in runs:
            row = read_row(run, FINISHED if run.finished else WAITING)
            if row.state == WAITING and (row.name, str(row.steps)) in failed:
                reason = failed[row.name, str(row.steps)]
                row = dataclasses.replace(row, state=FAILED, reason=reason)
            elif row.state == WAITING and looking and row.steps:
                row = dataclasses.replace(row, state=BEGUN)
            self.rows[run.name] = row
        write_results(list(self.rows.values()), out)

    def put(self, run: Planned, state: str, reason: str = "") -> Row:
        """Reads a run's row again and writes the tables."""
        self._runs[run.name] = run
        row = self.rows[run.name] = read_row(run, state, reason)
        write_results(list(self.rows.values()), self._out)
        return row

    def unusable(self, name: str, reason: str) -> None:
        """Adds a row for a run that was not started because its settings cannot be used."""
        self.rows[name] = Row(name=name, state=FAILED, settings={}, reason=reason)
        write_results(list(self.rows.values()), self._out)

    def summary(self) -> dict[str, Any]:
        """Writes the sweep's page; returns the names of runs by state, the best run, and where the tables are."""
        ordered, figure = ranked(list(self.rows.values()))
        names = {
            state: [row.name for row in ordered if row.state == state]
            for state in (FINISHED, STOPPED, BEGUN, WAITING)
        }
        finished = names[FINISHED]
        return {
            "out": str(self._out),
            **names,
            FAILED: {row.name: row.reason for row in ordered if row.state == FAILED},
            "best": finished[0] if finished else None,
            "by": figure,
            "results": str(self._out / "results.md"),
            **write_report([self._runs[name] for name in finished], self._out),
        }


def _failed(out: Path) -> dict[tuple[str, str], str]:
    """Reads from the folder's table which runs failed: (name, steps) -> reason."""
    table = out / "results.csv"
    if not table.exists():
        return {}
    # A spreadsheet program may have saved the table in another form.
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        rows = [row for row in csv.DictReader(lines) if row.get("state") == FAILED]
    cells = [[row.get(name) or "" for name in ("name", "steps", "reason")] for row in rows]
    return {(name, steps): reason for name, steps, reason in cells}


def write_results(rows: Sequence[Row], out: Path) -> None:
    """Writes `results.csv` and `results.md`, each as a whole."""
    ordered, figure = ranked(rows)
    varied = _varied(rows)
    settings = [f"config.{key}" if key in COLUMNS else key for key in varied]
    heads = ["name", *settings, *COLUMNS]
    lines = [
        [row.name, *(row.settings.get(key, "") for key in varied), *_figures(row)]
        for row in ordered
    ]
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([heads, *lines])
    with os_errors_as_input_error(out):
        write_text(out / "results.csv", table.getvalue())
        write_text(out / "results.md", _markdown(heads, lines, figure))


def write_report(runs: Sequence[Planned], out: Path) -> dict[str, str]:
    """Writes `report.html` over as many of the finished runs as fit on a page.

    Args:
        runs: finished runs, the best first.

    Returns:
        `report`, the page's path, empty if there is no run to show; `shown`, which runs are on it.
    """
    page = out / "report.html"
    most = len(runs)
    while most:
        try:
            write_page(read_experiment([run.workdir for run in runs[:most]]), page, MEGABYTES)
            shown = "all finished runs" if most == len(runs) else f"the best {most} of {len(runs)}"
            return {"report": str(page), "shown": shown}
        except PageTooLarge:
            most //= 2
    # A page that is there shows other runs.
    page.unlink(missing_ok=True)
    return {"report": "", "shown": ""}


def _figures(row: Row) -> list[Any]:
    values = [getattr(row, column) for column in COLUMNS]
    return ["" if v is None else float(f"{v:.6g}") if isinstance(v, float) else v for v in values]


def _varied(rows: Sequence[Row]) -> list[str]:
    # Runs that could not be started have no settings.
    rows = [row for row in rows if row.settings]
    keys = list(dict.fromkeys(key for row in rows for key in row.settings))
    return [key for key in keys if len({repr(row.settings.get(key)) for row in rows}) > 1]


def _markdown(heads: Sequence[str], lines: Sequence[Sequence[Any]], figure: str) -> str:
    by = {"": "", "loss": "Best first: the smallest loss."}.get(figure, f"Best first: by {figure}.")
    rows = [heads, ["---"] * len(heads), *([_cell(value) for value in line] for line in lines)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{by}\nreward, accuracy and loss are means over the last {LATEST} steps.\n\n{table}\n"


def _cell(value: Any) -> str:
    """Escapes Markdown and HTML, so that a text is shown as it is."""
    text = one_line(str(value))
    return re.sub(r"[\\|`*~\[\]<>&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)
