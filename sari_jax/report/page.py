"""One self-contained page of an experiment: it opens from disk, and asks nothing of the network."""

import base64
import dataclasses
import hashlib
import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from sari_jax.atomic import told, write_text
from sari_jax.report.charts import Chart, make_charts
from sari_jax.report.curves import plot_charts
from sari_jax.report.experiment import Experiment, Result, Run, differing
from sari_jax.report.rollouts import add_sounds, browse

MEGABYTE, MARGIN = 2**20, 2**16  # bytes; the margin is for what stands around each sound
FILES = importlib.resources.files("sari_jax.report") / "page"
LATEST = 20  # steps at a run's end that its row of the table averages


def write_page(experiment: Experiment, out: Path, megabytes: int) -> dict[str, Any]:
    """Writes the page.

    Args:
        megabytes: the page's largest size; sounds that have no room in it are left out, and it says how many.

    Returns:
        What is on it, counted, and its size in `megabytes`.
    """
    charts = make_charts(experiment)
    questions = browse(experiment.runs)
    data = {
        "charts": list(map(_plain, charts)),
        "runs": [run.name for run in experiment.runs],
        "questions": questions,
    }
    fixed = len(_render(experiment, charts, data).encode())
    counts = add_sounds(questions, max(0, megabytes * MEGABYTE - fixed - MARGIN))
    page = _render(experiment, charts, data)
    with told(out):
        write_text(out, page)
    return {
        "out": str(out),
        "megabytes": round(len(page.encode()) / MEGABYTE, 2),
        "runs": len(experiment.runs),
        "results": len(experiment.results),
        "charts": len(charts),
        "questions": len(questions),
        "visits": sum(len(question["visits"]) for question in questions),
        **counts,
    }


def write_pictures(experiment: Experiment, folder: Path) -> list[str]:
    """Each chart as a PNG of its own in that folder."""
    with told(folder):
        return [str(path) for path in plot_charts(make_charts(experiment), folder)]


def _render(experiment: Experiment, charts: list[Chart], data: dict[str, Any]) -> str:
    """Texts are escaped by the template, and in the data; no script but ours may run, whatever gets in."""
    plotly, script = get_plotlyjs(), (FILES / "page.js").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((FILES / "page.html").read_text("utf-8"))
    return template.render(
        charts=charts,
        rows=[_row(run) for run in experiment.runs],
        columns=COLUMNS,
        names=[run.name for run in experiment.runs],
        differing=differing(experiment.runs),
        results=[_scores(result) for result in experiment.results],
        data=data,
        style=Markup((FILES / "page.css").read_text("utf-8")),
        script=Markup(script),
        plotly=Markup(plotly),
        hashes=[_hash(text) for text in (plotly, script)],
    )


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


COLUMNS = (
    "run",
    "stage",
    "steps",
    "prompts",
    "reward",
    "accuracy",
    "held out",
    "s / step",
    "hours",
)


def _row(run: Run) -> list[str]:
    """A run in the table: what stands under `COLUMNS`."""
    rows = run.metrics

    def late(metric: str) -> str:
        values = [row[metric] for row in rows[-LATEST:] if metric in row]
        return f"{sum(values) / len(values):.3f}" if values else "–"

    held_out = "–"
    if run.held_out:
        first, last = run.held_out[0], run.held_out[-1]
        held_out = f"{first['accuracy']:.3f} → {last['accuracy']:.3f}"
    seconds = [row["seconds"] for row in rows if "seconds" in row]
    middle = sorted(seconds)[len(seconds) // 2] if seconds else 0.0
    groups = run.settings.get("grpo.completions") if run.stage == "grpo" else None
    batch = run.settings.get("batch_size", "")
    return [
        run.name,
        run.stage,
        f"{rows[-1]['step']} of {run.settings.get('steps', '?')}",
        f"{batch} × {groups}" if groups else str(batch),
        late("reward"),
        late("accuracy"),
        held_out,
        f"{middle:.2f}",
        f"{sum(seconds) / 3600:.2f}",
    ]


def _scores(result: Result) -> dict[str, Any]:
    """A result as its card shows it: figures by name, and published ones of the same version."""
    scores = result.scores
    accuracy = scores.get("accuracy", {})
    low, high = scores.get("interval") or (None, None)
    names = (("benchmark", "benchmark"), ("version", "version"), ("rule", "rule"), ("rows", "rows"))
    figures = [(told, str(scores[name])) for name, told in names if name in scores]
    figures += [
        (f"accuracy over {which}", f"{value:.1%}")
        for which, value in accuracy.items()
        if value is not None
    ]
    if low is not None:
        figures.append(("95 % interval", f"{low:.1%} to {high:.1%}"))
    return {
        "name": result.name,
        "figures": figures,
        "published": _published(scores.get("published") or {}),
    }


def _published(rows: dict[str, dict[str, float]]) -> dict[str, Any]:
    columns: Sequence[str] = list(dict.fromkeys(name for row in rows.values() for name in row))
    return {
        "columns": columns,
        "rows": [
            [name, *(f"{row[column]:.1%}" if column in row else "–" for column in columns)]
            for name, row in rows.items()
        ],
    }


def _plain(chart: Chart) -> dict[str, Any]:
    """For the page's script."""
    lines = [
        {
            "name": one.name,
            "steps": one.steps.tolist(),
            "values": [float(f"{value:.5g}") for value in one.values],
            "smooth": [float(f"{value:.5g}") for value in one.smooth],
            "window": one.window,
            "place": one.place,
        }
        for one in chart.lines
    ]
    told = {name: getattr(chart, name) for name in ("unit", "labels", "rates", "stacked", "top")}
    return told | {"lines": lines, "bars": [dataclasses.asdict(bars) for bars in chart.bars]}
