"""A run's numbers: JSONL for machines, tensorboardX for people, both cut back to the step a run resumes from."""

import json
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from sari_jax.atomic import write_text


class Metrics:
    """metrics.jsonl, questions.jsonl, samples.jsonl and a tensorboard folder in a run's workdir.

    After a kill the files may reach past the checkpoint; rows from `start` on are cut, so that every step
    stands there once. One host of several writes.
    """

    def __init__(self, workdir: Path | str, start: int):
        self._rows = _reopen(Path(workdir) / "metrics.jsonl", start)
        self._questions = _reopen(Path(workdir) / "questions.jsonl", start)
        self._samples = _reopen(Path(workdir) / "samples.jsonl", start)
        self._board = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=start)

    def write(self, step: int, values: dict[str, float]) -> None:
        self._rows.write(json.dumps({"step": step, **values}) + "\n")
        self._rows.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def ask(self, step: int, ids: list[str], pass_rates: list[float]) -> None:
        """Which questions a step's batch held, in order, and how often each was answered right, where it was asked."""
        row = {"step": step, "ids": ids, **({"pass_rates": pass_rates} if pass_rates else {})}
        self._questions.write(json.dumps(row) + "\n")
        self._questions.flush()

    def sample(self, step: int, samples: list[dict[str, Any]]) -> None:
        for sample in samples:
            self._samples.write(json.dumps({"step": step, **sample}) + "\n")
            text = "\n\n".join(f"{key}: {value}" for key, value in sample.items())
            # Four spaces make it a code block: a completion is shown as it is, never as markup.
            self._board.add_text("sample", "    " + text.replace("\n", "\n    "), step)
        self._samples.flush()

    def close(self) -> None:
        self._rows.close()
        self._questions.close()
        self._samples.close()
        self._board.close()


def read_metrics(workdir: Path | str) -> list[dict[str, float]]:
    """The rows of metrics.jsonl; a last line cut short by a kill is left out."""
    return _rows_before(Path(workdir) / "metrics.jsonl", None)


def _rows_before(path: Path, start: int | None) -> list[dict]:
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if start is None or row["step"] < start:
            rows.append(row)
    return rows


def _reopen(path: Path, start: int):
    kept = _rows_before(path, start)
    write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
    return path.open("a")
