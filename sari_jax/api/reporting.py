"""Reports of runs: one page of them, and the files that they write."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sari_jax.errors import InputError, require
from sari_jax.train.metrics import read_metrics, read_samples

__all__ = ["read_metrics", "read_samples", "report"]


def report(
    folders: Path | str | Sequence[Path | str],
    out: Path | str | None = None,
    *,
    pictures: Path | str | None = None,
    megabytes: int = 20,
) -> dict[str, Any]:
    """Writes one page of runs and evaluations: curves, scores, and rollouts to read and to listen to.

    Args:
        folders: workdirs of runs, and folders that `evaluate` wrote.
        out: the page, a FILE.html, new or to replace.
        pictures: a folder for each chart as a PNG.
        megabytes: the page's largest size. To fit, the page shows fewer rollouts and leaves out audio.

    Returns:
        With `out`: its path, its size in `megabytes`, and counts of what is on the page, such as `runs`, `charts` and
        `questions`. With `pictures`: the paths of the PNG files.

    Raises:
        InputError: a folder is neither, nothing can be written there, the page does not fit, or the extra `report` is
            not installed.
    """
    require("sari report", "report", "plotly", "matplotlib", "librosa")
    from sari_jax.report.experiment import read_experiment
    from sari_jax.report.page import write_page, write_pictures

    if out is None and pictures is None:
        raise InputError(
            "a report needs a place: out (--out FILE.html) for the page, or pictures (--png DIR) for the charts"
        )
    if out is not None and Path(out).suffix != ".html":
        raise InputError(f"{out}: a page's name ends in .html; name another out (--out)")
    named = [folders] if isinstance(folders, str | Path) else folders
    experiment = read_experiment([str(folder) for folder in named])
    written: dict[str, Any] = {}
    if pictures is not None:
        written["pictures"] = write_pictures(experiment, Path(pictures))
    if out is not None:
        written |= write_page(experiment, Path(out), megabytes)
    return written
