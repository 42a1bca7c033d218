"""A picture of how hard a corpus is for a model."""

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sari_jax.atomic import os_errors_as_input_error, write_text
from sari_jax.data.ledger import Ledger
from sari_jax.errors import install


def report_difficulty(
    out: Path, rates: Sequence[float | None], attempts: int, ledger: Ledger
) -> dict[str, Any]:
    """Draws OUT.png and writes OUT.report.json beside the scored questions.

    Without Matplotlib there is no picture, and one line says so.

    Args:
        out: file of the scored questions.
        rates: pass rates, None for questions that could not be asked.

    Returns:
        The report that OUT.report.json holds.
    """
    known = [rate for rate in rates if rate is not None]
    drawn = plot_pass_rates(known, attempts, out.with_suffix(".png")) if known else {}
    report = {"scored": len(known), **drawn, **ledger.report()}
    path = out.with_suffix(".report.json")
    with os_errors_as_input_error(path):
        write_text(path, json.dumps(report, indent=2) + "\n")
    return report


def plot_pass_rates(rates: Sequence[float], attempts: int, out: Path) -> dict[str, Any]:
    """Draws a histogram of pass rates into a PNG.

    Returns:
        `mean_pass_rate`, and `histogram`: the number of questions with 0, 1, ..., `attempts` right attempts.
    """
    right = np.rint(np.asarray(rates) * attempts).astype(int)
    counts = np.bincount(right, minlength=attempts + 1)
    mean_and_counts = {"mean_pass_rate": float(np.mean(rates)), "histogram": counts.tolist()}
    if importlib.util.find_spec("matplotlib") is None:
        line = f"{out} is not drawn: it needs matplotlib; {install('report')}"
        print(line, file=sys.stderr)
        return mean_and_counts
    from sari_jax.report.curves import BLUE, GREY, new_figure, save_figure

    figure = new_figure(1, 1)
    axes = figure.axes[0]
    colours = [GREY, *[BLUE] * (attempts - 1), GREY]
    axes.bar(np.arange(attempts + 1) / attempts, counts, width=0.8 / attempts, color=colours)
    axes.set(xlabel=f"pass rate over {attempts} attempts", ylabel="questions")
    axes.set_title(f"{len(rates)} questions: {counts[0]} never right, {counts[-1]} always")
    save_figure(figure, out)
    return mean_and_counts
