"""Reads the folders of runs and evaluations that a report shows."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flax import traverse_util

from sari_jax.data.jsonl import json_object
from sari_jax.errors import InputError
from sari_jax.train.metrics import read_held_out, read_metrics, read_questions, read_samples

Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The contents of a run's workdir. The run need not have ended.

    Attributes:
        settings: the run's settings by their dotted names.
        metrics, questions, samples, held_out: the rows of the files of these names; see `train.metrics`.
    """

    name: str
    settings: dict[str, Any]
    metrics: Rows
    questions: Rows
    samples: Rows
    held_out: Rows

    @property
    def stage(self) -> str:
        return str(self.settings.get("stage", ""))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """The contents of a folder that `sari eval` wrote.

    Attributes:
        scores: the object in `scores.json`.
    """

    name: str
    scores: dict[str, Any]

    @property
    def benchmark(self) -> str:
        """Name and version of the benchmark, where they are known."""
        return ", ".join(
            str(self.scores[name]) for name in ("benchmark", "version") if self.scores.get(name)
        )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The runs and results of one report."""

    runs: list[Run]
    results: list[Result]


def read_experiment(folders: Sequence[Path | str]) -> Experiment:
    """Reads workdirs and folders of `sari eval`, in any order.

    Raises:
        InputError: a folder is neither, a folder is named twice, or a run has no step.
    """
    paths = [Path(folder).absolute() for folder in folders]
    names = _names(paths)
    runs: list[Run] = []
    results: list[Result] = []
    for path, name in zip(paths, names, strict=True):
        if (path / "scores.json").is_file():
            results.append(Result(name=name, scores=_read(path / "scores.json")))
        elif (path / "config.json").is_file():
            runs.append(_run(path, name))
        else:
            raise InputError(
                f"{path}: has neither config.json nor scores.json; name a run's workdir, or a folder of sari eval"
            )
    return Experiment(runs, results)


def _run(path: Path, name: str) -> Run:
    metrics = read_metrics(path)
    if not metrics:
        raise InputError(f"{path}: no step is trained yet; wait for the run's first step")
    return Run(
        name=name,
        settings=traverse_util.flatten_dict(_read(path / "config.json"), sep="."),
        metrics=metrics,
        questions=read_questions(path),
        samples=read_samples(path),
        held_out=read_held_out(path),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return json_object(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as a JSON object ({error})") from error


def _names(paths: Sequence[Path]) -> list[str]:
    """Returns the folders' names, with as many parents as it takes to make them differ."""
    parts = [path.parts for path in paths]
    for count in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if max(Counter(names).values(), default=0) < 2:
            return names
    twice = next(path for path in paths if paths.count(path) > 1)
    raise InputError(f"{twice}: is named twice; name each folder once")


def differing(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Returns the settings in which runs differ, with each run's value in order."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    values = {name: [_shown(run.settings.get(name)) for run in runs] for name in names}
    return {name: each for name, each in values.items() if len(set(each)) > 1}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
