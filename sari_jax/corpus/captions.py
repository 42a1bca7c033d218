"""Captions: clips with a description of what they hold, one JSON line per clip. Questions are written from them."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sari_jax.data.jsonl import json_object, read_items, write_items
from sari_jax.data.ledger import Ledger
from sari_jax.data.records import TASKS, Clip, parse_clips


@dataclasses.dataclass(frozen=True)
class Caption:
    """A clip that questions may be written about.

    Attributes:
        task: sound, music or speech.
        caption: a sentence or more; None if a model has still to write it.
        labels: the source's own words for the content of the clip.
    """

    id: str
    audio: tuple[Clip, ...]
    task: str
    source: str
    licence: str
    caption: str | None = None
    labels: tuple[str, ...] = ()


def read_captions(
    path: str | Path, *, check_audio: bool = True, ledger: Ledger | None = None
) -> list[Caption]:
    """Reads a JSONL of captions. Clip paths start at the file's folder and are returned absolute.

    Any number of lines may be bad.

    Raises:
        InputError: no such file, or, without a ledger, no usable line.
    """
    root = Path(path).parent.absolute()
    return read_items(
        path,
        lambda line: make_caption(json_object(line), root, check_audio=check_audio),
        max_bad_fraction=1.0,
        ledger=ledger,
    )


def write_captions(path: str | Path, captions: Iterable[Caption]) -> None:
    """Writes a JSONL of captions, first under another name.

    Raises:
        InputError: the file cannot be written.
    """
    write_items(path, captions)


def make_caption(raw: dict[str, Any], root: Path, *, check_audio: bool = True) -> Caption:
    """Makes a caption from a line's object; unknown fields are ignored.

    Raises:
        ValueError: a field is missing or of another kind.
    """
    names = [field.name for field in dataclasses.fields(Caption)]
    values = {name: raw[name] for name in names if name in raw}
    for name in ("id", "task", "source", "licence"):
        if not isinstance(values.get(name), str) or not values[name].strip():
            raise ValueError(f"{name} must be text that is not empty")
    if values["task"] not in TASKS:
        raise ValueError(f"task {values['task']!r} must be one of {', '.join(TASKS)}")
    if not isinstance(values.get("caption"), str | None):
        raise ValueError("caption must be text")
    labels = values.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError("labels must be a list of texts")
    clips = parse_clips(values.get("audio"), root, check_audio)
    return Caption(**values | {"labels": tuple(labels), "audio": clips})
