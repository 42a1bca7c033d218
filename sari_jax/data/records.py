"""Records: one multiple-choice question about audio per JSON line, validated when it is read."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sari_jax.audio.packed import shard_of
from sari_jax.data.jsonl import json_object, read_items, write_items
from sari_jax.data.ledger import Drop, Ledger

TASKS = ("sound", "music", "speech")
SECTIONS = ("planning", "caption", "reasoning", "summary")
MISSING_AUDIO = "sound file missing"
# Seconds. No file is longer, and the samples of more could not be counted.
ENDLESS = 1e9
NOT_CLIPS = "audio must be a list of one or more {path, start?, end?}"


@dataclasses.dataclass(frozen=True)
class Clip:
    """An audio file, or a span of it in seconds."""

    path: str
    start: float | None = None
    end: float | None = None


@dataclasses.dataclass(frozen=True)
class Record:
    """One multiple-choice question about audio.

    Attributes:
        id: a name that is unique within a file.
        audio: the clips that the question is about, in order.
        choices: two or more; some rows of MMAU list one twice, even the right one.
        answer_index: the index of the right choice.
        task: sound, music or speech.
        source: the data set that the audio comes from.
        licence: the terms of the audio.
        kind: the kind of question, if the source gives it.
        difficulty: the difficulty that the source intends, if it gives one.
        pass_rate: fraction of a model's attempts that were right, once scored.
        chain_structured: a chain of thought by sections, name -> text.
        chain_free: a chain of thought in one piece.
    """

    id: str
    audio: tuple[Clip, ...]
    question: str
    choices: tuple[str, ...]
    answer_index: int
    task: str
    source: str
    licence: str
    kind: str | None = None
    difficulty: str | None = None
    pass_rate: float | None = None
    chain_structured: dict[str, str] | None = None
    chain_free: str | None = None


def read_records(
    path: str | Path,
    *,
    max_bad_fraction: float = 0.0,
    audio_root: str | Path | None = None,
    check_audio: bool = True,
    ledger: Ledger | None = None,
    limit: int = 0,
) -> list[Record]:
    """Reads the records of a JSONL file; the paths of their clips become absolute.

    Bad lines are skipped and listed in the ledger, or on standard error if there is none. Unknown fields are ignored.

    Args:
        path: the file's path.
        max_bad_fraction: share of bad lines that is accepted.
        audio_root: the folder that relative paths start from; default the file's own.
        check_audio: whether a clip whose file is missing makes a line bad.
        ledger: takes the bad lines.
        limit: reads no more than this many records; 0 for all.

    Raises:
        InputError: there is no such file, no usable line, or too many bad lines; the first is named with its reason.
    """
    root = Path(audio_root or Path(path).parent).absolute()
    return read_items(
        path,
        lambda line: parse_record(line, root, check_audio=check_audio),
        max_bad_fraction=max_bad_fraction,
        ledger=ledger,
        limit=limit,
    )


def parse_record(line: str, root: Path, *, check_audio: bool = True) -> Record:
    """Reads a record from a line.

    Raises:
        ValueError: the line is not a record; the text says why.
    """
    return make_record(json_object(line), root, check_audio=check_audio)


def make_record(raw: dict[str, Any], root: Path, *, check_audio: bool = True) -> Record:
    """Makes a record of a JSON object; unknown fields are ignored.

    Raises:
        ValueError: a field is missing or wrong; the text says which.
    """
    names = {field.name for field in dataclasses.fields(Record)}
    values = {name: value for name, value in raw.items() if name in names}
    required = {f.name for f in dataclasses.fields(Record) if f.default is dataclasses.MISSING}
    if missing := sorted(required - values.keys()):
        raise ValueError(f"lacks {', '.join(missing)}")
    for name in ("id", "question", "task", "source", "licence"):
        if not isinstance(values[name], str) or not values[name].strip():
            raise ValueError(f"{name} must be text that is not empty")
    if values["task"] not in TASKS:
        raise ValueError(f"task {values['task']!r} must be one of {', '.join(TASKS)}")
    choices = values["choices"]
    if (
        not isinstance(choices, list)
        or len(choices) < 2
        or not all(isinstance(c, str) and c.strip() for c in choices)
    ):
        raise ValueError("choices must be a list of at least two texts")
    index = values["answer_index"]
    if type(index) is not int or not 0 <= index < len(choices):
        raise ValueError(f"answer_index {index!r} must be from 0 to {len(choices) - 1}")
    rate = values.get("pass_rate")
    if rate is not None and not (type(rate) in (int, float) and 0 <= rate <= 1):
        raise ValueError(f"pass_rate {rate!r} must be from 0 to 1")
    chain = values.get("chain_structured")
    if chain is not None and not (
        isinstance(chain, dict) and all(isinstance(v, str) for v in chain.values())
    ):
        raise ValueError("chain_structured must map section names to texts")
    for name in ("kind", "difficulty", "chain_free"):
        if not isinstance(values.get(name), str | None):
            raise ValueError(f"{name} must be text")
    values["choices"] = tuple(choices)
    values["audio"] = parse_clips(values["audio"], root, check_audio)
    return Record(**values)


def parse_clips(raw: Any, root: Path, check: bool) -> tuple[Clip, ...]:
    """Reads a record's `audio`; relative paths start from `root`.

    Raises:
        ValueError: it is not a list of clips, or a file is missing and `check` is set.
    """
    if not isinstance(raw, list) or not raw:
        raise ValueError(NOT_CLIPS)
    return tuple(_clip(clip, root, check) for clip in raw)


def _clip(raw: Any, root: Path, check: bool) -> Clip:
    """Reads one clip of a record's `audio`."""
    if not isinstance(raw, dict) or not isinstance(raw.get("path"), str) or not raw["path"]:
        raise ValueError(NOT_CLIPS)
    path = root / raw["path"]
    file, _ = shard_of(str(path)) or (path, 0)
    # Unlike Path.is_file, os.path.isfile accepts any text as a name.
    if check and not os.path.isfile(file):
        raise Drop(MISSING_AUDIO, f"sound file {path} is missing")
    start, end = raw.get("start"), raw.get("end")
    for name, value in (("start", start), ("end", end)):
        if value is not None and not (type(value) in (int, float) and 0 <= value < ENDLESS):
            raise ValueError(f"audio {name} {value!r} must be seconds, 0 or more")
    if end is not None and end <= (start or 0):
        raise ValueError(f"audio end {end!r} must be after its start {start or 0!r}")
    return Clip(str(path), start, end)


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Writes records to a JSONL file, under a temporary name first; fields that are None are left out.

    Raises:
        InputError: the file cannot be written.
    """
    write_items(path, records)
