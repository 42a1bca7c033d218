"""AudioSet: ten-second segments of videos with labels of their sounds (Gemmeke et al. 2017).

The files are those of Google's page: a CSV with the columns YTID, start_seconds, end_seconds and positive_labels, after
three lines of #, where only the labels have quotes; and class_labels_indices.csv with `mid` and `display_name`.

A row gives labels with a caption still to be written. A segment is one clip, already cut out of its video. It is found
by the names that common downloaders give it: YTID, YYTID, YTID_START_END in seconds or milliseconds, YTID_START.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sari_jax.corpus.sources.rows import BAD_FIELD, clip, csv_rows
from sari_jax.corpus.sources.source import Context, Source
from sari_jax.data.ledger import Drop
from sari_jax.errors import InputError

NAMES = "class_labels_indices.csv"
COLUMNS = ("YTID", "start_seconds", "end_seconds", "positive_labels")
UNKNOWN = "unknown label"


@dataclasses.dataclass(frozen=True)
class Segment:
    """A row of the CSV, with the display names of its labels."""

    video: str
    start: float
    end: float
    labels: tuple[str, ...]


def read(path: Path) -> Iterator[tuple[str, Segment | Drop]]:
    names = _display_names(path)
    for where, row in csv_rows(path, (), COLUMNS):
        try:
            yield where, row if isinstance(row, Drop) else _segment(row, names)
        except Drop as drop:
            yield where, drop


def _display_names(path: Path) -> dict[str, str]:
    table = path.with_name(NAMES)
    if not table.is_file():
        raise InputError(
            f"{table}: no such file; put AudioSet's names of labels beside {path.name}"
        )
    rows = csv_rows(table, ("mid", "display_name"))
    return {row["mid"]: row["display_name"] for _, row in rows if not isinstance(row, Drop)}


def _segment(row: dict[str, str], names: dict[str, str]) -> Segment:
    try:
        start, end = float(row["start_seconds"]), float(row["end_seconds"])
    except ValueError as error:
        raise Drop(BAD_FIELD, f"start and end must be seconds ({error})") from error
    if not row["YTID"] or not 0 <= start < end:
        raise Drop(BAD_FIELD, f"{row['YTID']!r} from {start} to {end} is no segment of a video")
    labels = [label.strip() for label in row["positive_labels"].split(",")]
    for label in labels:
        if label not in names:
            raise Drop(UNKNOWN, f"label {label!r} is not in {NAMES}")
    return Segment(row["YTID"], start, end, tuple(names[label] for label in labels))


def convert(row: Segment, context: Context) -> list[dict[str, Any]]:
    start, end = f"{row.start:g}", f"{row.end:g}"
    stems = [
        row.video,
        f"Y{row.video}",
        f"{row.video}_{start}_{end}",
        f"{row.video}_{row.start * 1000:.0f}_{row.end * 1000:.0f}",
        f"{row.video}_{start}",
    ]
    music = "Music" in row.labels
    task = "music" if music else "speech" if "Speech" in row.labels else "sound"
    return [
        {
            "id": f"audioset-{row.video}_{start}",
            "audio": clip(context.root, *stems),
            "task": task,
            "labels": list(row.labels),
        }
    ]


SOURCE = Source(
    name="audioset",
    needs=f"a segments CSV of AudioSet, {NAMES} beside it and, in --audio-root, the cut clips as YTID.wav",
    licence="AudioSet labels: CC BY 4.0; clips: YouTube videos, copyright of their uploaders",
    read=read,
    convert=convert,
)
