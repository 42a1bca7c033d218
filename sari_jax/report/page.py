"""One self-contained HTML page of an experiment: it opens from disk and needs no network."""

import base64
import dataclasses
import hashlib
import importlib.resources
import math
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from sari_jax.atomic import os_errors_as_input_error, write_text
from sari_jax.errors import InputError
from sari_jax.report.charts import Chart, make_charts
from sari_jax.report.curves import plot_charts
from sari_jax.report.experiment import Experiment, Result, Run, differing
from sari_jax.report.rollouts import SHARES, add_sounds, browse

MEGABYTE = 2**20
# Bytes that stay free for the JSON around each clip.
MARGIN = 2**16
FILES = importlib.resources.files("sari_jax.report") / "page"
# The table averages this many steps at a run's end.
LATEST = 20


class PageTooLarge(InputError):
    """The page exceeds its limit even with the fewest rollouts."""


def write_page(experiment: Experiment, out: Path, megabytes: int) -> dict[str, Any]:
    """Writes the page.

    Args:
        megabytes: limit of the page's size. The page shows the first of `SHARES` that fits, and leaves out the audio of
            clips for which no room is left.

    Returns:
        Counts of what is on the page, and its size in `megabytes`.

    Raises:
        PageTooLarge: the page does not fit even with the fewest rollouts and no audio.
        InputError: the page cannot be written.
    """
    charts = make_charts(experiment)
    data = {"charts": list(map(_plain, charts)), "runs": [run.name for run in experiment.runs]}
    limit = megabytes * MEGABYTE - MARGIN
    for share in SHARES:
        questions = browse(experiment.runs, share)
        fixed = len(_render(experiment, charts, data | {"questions": questions, "sounds": []}))
        if fixed <= limit:
            break
    else:
        raise PageTooLarge(
            f"a page of these folders takes {fixed / MEGABYTE:.1f} MB without any audio, which is more than"
            f" --megabytes {megabytes}; raise --megabytes, or name fewer folders"
        )
    sounds, counts = add_sounds(questions, limit - fixed)
    data |= {"questions": questions, "sounds": list(map(dataclasses.asdict, sounds))}
    page = _render(experiment, charts, data)
    with os_errors_as_input_error(out):
        write_text(out, page.decode())
    return {
        "out": str(out),
        "megabytes": round(len(page) / MEGABYTE, 2),
        "runs": len(experiment.runs),
        "results": len(experiment.results),
        "charts": len(charts),
        "questions": len(questions),
        "visits": sum(len(question["visits"]) for question in questions),
        **counts,
    }


def write_pictures(experiment: Experiment, folder: Path) -> list[str]:
    """Draws each chart into a PNG of its own in the folder; returns their paths."""
    with os_errors_as_input_error(folder):
        return [str(path) for path in plot_charts(make_charts(experiment), folder)]


def _render(experiment: Experiment, charts: list[Chart], data: dict[str, Any]) -> bytes:
    """Fills the template.

    The template escapes all texts, the data's too, and its policy allows no script but the two of ours. An unpaired
    surrogate in a name or a text, which UTF-8 cannot encode, becomes a question mark.
    """
    plotly = get_plotlyjs()
    script = (FILES / "page.js").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False}
    template = environment.from_string((FILES / "page.html").read_text("utf-8"))
    page = template.render(
        charts=charts,
        rows=[_row(run) for run in experiment.runs],
        columns=COLUMNS,
        names=[run.name for run in experiment.runs],
        differing=differing(experiment.runs),
        latest=LATEST,
        results=[_scores(result) for result in experiment.results],
        data=_finite(data),
        style=Markup((FILES / "page.css").read_text("utf-8")),
        script=Markup(script),
        plotly=Markup(plotly),
        hashes=[_hash(text) for text in (plotly, script)],
    )
    return page.encode("utf-8", "replace")


def _finite(value: Any) -> Any:
    """Replaces NaN and infinity, which JSON lacks, by None."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
    """Returns a run's cells in the table of runs; `COLUMNS` are their heads."""
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
    groups = run.settings.get("grpo.num_completions") if run.stage == "grpo" else None
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


FIGURES = ("benchmark", "version", "rule", "rows", "answered", "unreadable", "repeated")


def _scores(result: Result) -> dict[str, Any]:
    """Returns a result as its card shows it: named figures, and published ones of the same benchmark version."""
    scores = result.scores
    figures = [(name, str(scores[name])) for name in FIGURES if scores.get(name) is not None]
    if scores.get("checked") is False:
        figures.append(("rows", "not checked to be this version's"))
    official = scores.get("official") or {}
    if official.get("accuracy") is not None:
        over = f"accuracy by the official script, over {official['rows']}"
        figures.append((over, f"{official['accuracy']:.1%}"))
    if scores.get("fail_rate") is not None:
        figures.append(("answers that the official script guesses", f"{scores['fail_rate']:.1%}"))
    for which, value in (scores.get("accuracy") or {}).items():
        if value is not None:
            figures.append((f"accuracy over {which}", f"{value:.1%}"))
    if scores.get("interval"):
        low, high = scores["interval"]
        figures.append(("95 % interval", f"{low:.1%} to {high:.1%}"))
    return {"name": result.name, "figures": figures, "published": _published(result)}


def _published(result: Result) -> dict[str, Any]:
    """Returns a table of published figures with ours as its first row; an empty one if none are published."""
    scores = result.scores
    rows = scores.get("published") or {}
    if not rows:
        return {"columns": [], "rows": []}
    names = dict.fromkeys(name for row in rows.values() for name in row if name != "source")
    by = (scores.get("by") or {}).get("task", {})
    ours = {name: by[name]["accuracy"] for name in names if name in by}
    official = scores.get("official") or {}
    accuracy = scores.get("accuracy") or {}
    ours["all"] = official.get("accuracy", accuracy.get("all"))
    table = {result.name: ours | {"source": "here"}} | rows
    return {
        "columns": [*names, "source"],
        "rows": [
            [
                model,
                *("–" if row.get(name) is None else f"{row[name]:.1%}" for name in names),
                row.get("source", ""),
            ]
            for model, row in table.items()
        ],
    }


def _plain(chart: Chart) -> dict[str, Any]:
    """Returns a chart as JSON for the page's script, with values rounded to five digits."""
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
    plain = {name: getattr(chart, name) for name in ("unit", "labels", "rates", "stacked")}
    return plain | {"lines": lines, "bars": [dataclasses.asdict(bars) for bars in chart.bars]}
