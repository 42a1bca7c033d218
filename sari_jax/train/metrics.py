"""The logs of a run: JSONL for machines, TensorBoard for people. Both are cut back to the step a run resumes from."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from tensorboardX import SummaryWriter

from sari_jax.atomic import write_text
from sari_jax.audio.clips import load_clip
from sari_jax.data.processor import SAMPLE_RATE
from sari_jax.data.records import Record
from sari_jax.errors import InputError
from sari_jax.train.samples import Sample, sample_row

SHOWN = 4  # questions of a step that TensorBoard shows, the first one with its audio


class Metrics:
    """The JSONL files of a run's workdir and its TensorBoard folder.

    After a kill the files may reach past the checkpoint. Rows from `start` on are cut, so that every step is written
    once. One host of several writes.

    Args:
        owed: whether the held-out questions after the step before `start` are asked again. Their rows are cut too.

    Raises:
        InputError: here and in every method that writes, if the file system refuses it, as a full disk does.
    """

    def __init__(self, workdir: Path | str, start: int, *, owed: bool = False):
        files = ("metrics", "questions", "samples", "held_out", "skipped")
        again = start - 1 if owed else None
        self._rows, self._questions, self._samples, self._held_out, self._skipped = self._files = [
            _reopen(Path(workdir) / f"{name}.jsonl", start, again) for name in files
        ]
        self._board = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=start)

    def write(self, step: int, values: dict[str, float]) -> None:
        _add(self._rows, {"step": step, **values})
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def ask(self, step: int, records: Sequence[Record], pass_rates: list[float]) -> None:
        """Writes a step's questions in order, with their pass rates: in this step, and by the base model if known."""
        row = {"step": step, "ids": [record.id for record in records]}
        if pass_rates:
            row["pass_rates"] = pass_rates
        if any(record.pass_rate is not None for record in records):
            row["scored"] = [record.pass_rate for record in records]
        _add(self._questions, row)

    def sample(
        self, step: int, samples: Sequence[Sample], records: Sequence[Record], split: str = "train"
    ) -> None:
        """Writes questions with their completions, and a few of them to TensorBoard.

        Args:
            records: the dataset that the samples' indices refer to.
            split: "train" or "held_out".
        """
        for place, (index, completions) in enumerate(samples):
            row = sample_row(records[index], split, completions)
            _add(self._samples, {"step": step, **row})
            if place < SHOWN:
                self._show(step, place, records[index], row)

    def skip(self, step: int, found: dict[str, str], split: str = "train") -> None:
        """Writes the records that were skipped while batches were read, in a step or after it, and why.

        Args:
            split: "train" or "held_out".
        """
        for id, why in found.items():
            _add(self._skipped, {"step": step, "split": split, "id": id, "why": why})

    def examine(self, step: int, values: dict[str, float]) -> None:
        """Writes the scores of the held-out questions after a step."""
        _add(self._held_out, {"step": step, **values})
        for name, value in values.items():
            self._board.add_scalar(f"held_out/{name}", value, step)

    def _show(self, step: int, place: int, record: Record, row: dict) -> None:
        completions = row.pop("completions")
        parts = [f"{name}: {value}" for name, value in row.items()]
        for one in completions:
            parts += ["", *(f"{name}: {value}" for name, value in one.items() if name != "text")]
            parts.append(one["text"])
        # Four spaces before each line make it a code block: text is shown as it is, never as markup.
        text = "\n".join("    " + line for line in "\n".join(parts).splitlines())
        tag = f"{row['split']}/{place}"
        self._board.add_text(tag, text, step)
        if place == 0:
            clip = record.audio[0]
            waveform = load_clip(clip.path, clip.start, clip.end)
            self._board.add_audio(tag, waveform, step, sample_rate=SAMPLE_RATE)

    def close(self) -> None:
        """Closes all files, even if one of them cannot be written."""
        with ExitStack() as closing:
            for file in self._files:
                closing.enter_context(_written(file.name))
                closing.callback(file.close)
            closing.enter_context(_written(self._board.logdir))
            closing.callback(self._board.close)


def read_samples(workdir: Path | str) -> list[dict]:
    """The lines of samples.jsonl; see `samples.sample_row`."""
    return _rows_before(Path(workdir) / "samples.jsonl", None)


def read_questions(workdir: Path | str) -> list[dict]:
    """The lines of questions.jsonl: each step's `ids`, and `pass_rates` and `scored` where there are any."""
    return _rows_before(Path(workdir) / "questions.jsonl", None)


def read_held_out(workdir: Path | str) -> list[dict[str, float]]:
    """The lines of held_out.jsonl: `accuracy` and `format` after some steps."""
    return _rows_before(Path(workdir) / "held_out.jsonl", None)


def read_metrics(workdir: Path | str) -> list[dict[str, float]]:
    """The rows of metrics.jsonl; a last line cut short by a kill is left out."""
    return _rows_before(Path(workdir) / "metrics.jsonl", None)


def examined(workdir: Path | str) -> set[int]:
    """The steps after which all held-out questions were answered."""
    return {int(row["step"]) for row in read_held_out(workdir)}


def _add(file: TextIO, row: dict) -> None:
    with _written(file.name):
        file.write(json.dumps(row) + "\n")
        file.flush()


@contextmanager
def _written(path: Path | str) -> Iterator[None]:
    """Raises an InputError for what the file system refuses."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); make room, and the same command goes on from the last"
            " checkpoint"
        ) from error


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


def _reopen(path: Path, start: int, again: int | None) -> TextIO:
    kept = [
        row
        for row in _rows_before(path, start)
        if row["step"] != again or row.get("split") != "held_out"
    ]
    with _written(path):
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        return path.open("a")
