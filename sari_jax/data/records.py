"""The record: one JSON line per question. Validated on read, written aside and then renamed."""

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
MISSING_SOUND = "sound file missing"
ENDLESS = 1e9  # seconds: no file is longer, and what is cannot be counted in samples
NOT_CLIPS = "audio must be a list of one or more {path, start?, end?}"


@dataclasses.dataclass(frozen=True)
class Clip:
    """A sound file or, in seconds, a span of it."""

    path: str
    start: float | None = None
    end: float | None = None


@dataclasses.dataclass(frozen=True)
class Record:
    """One multiple-choice question about sound.

    Attributes:
        choices: two or more; MMAU has rows where one stands twice, the right one too.
        task: sound, music or speech.
        source, licence: where its sound comes from, and on what terms.
        kind, difficulty: what is asked and how hard it was meant to be, where the source knows.
        pass_rate: fraction of a model's attempts that were right, once scored.
        chain_structured: section name -> text. chain_free: the same thought in one piece.
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
    """Reads a JSONL; clip paths come back absolute, taken from `audio_root` or else the file's own folder.

    Bad lines are skipped: listed in the ledger, or reported on standard error. Fields that a record has not got are
    passed over. Nothing is read after `limit` records, if one is given.

    Raises:
        InputError: no such file, no usable line, or too many bad ones; the first is named with line and reason.
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
    """One line -> a record.

    Raises:
        ValueError: what is wrong with it.
    """
    return make_record(json_object(line), root, check_audio=check_audio)


def make_record(raw: dict[str, Any], root: Path, *, check_audio: bool = True) -> Record:
    """A line's object -> a record; fields that a record has not got are passed over.

    Raises:
        ValueError: what is wrong with it.
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
    """A record's `audio`, its paths taken from `root`.

    Raises:
        ValueError: it is not a list of clips, or, where that is checked, one is missing.
    """
    if not isinstance(raw, list) or not raw:
        raise ValueError(NOT_CLIPS)
    return tuple(_clip(clip, root, check) for clip in raw)


def _clip(raw: Any, root: Path, check: bool) -> Clip:
    if not isinstance(raw, dict) or not isinstance(raw.get("path"), str) or not raw["path"]:
        raise ValueError(NOT_CLIPS)
    path = root / raw["path"]
    file, _ = shard_of(str(path)) or (path, 0)
    if check and not os.path.isfile(file):  # unlike Path.is_file, takes any text for a name
        raise Drop(MISSING_SOUND, f"sound file {path} is missing")
    start, end = raw.get("start"), raw.get("end")
    for name, value in (("start", start), ("end", end)):
        if value is not None and not (type(value) in (int, float) and 0 <= value < ENDLESS):
            raise ValueError(f"audio {name} {value!r} must be seconds, 0 or more")
    if end is not None and end <= (start or 0):
        raise ValueError(f"audio end {end!r} must be after its start {start or 0!r}")
    return Clip(str(path), start, end)


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Writes a JSONL aside and renames it; fields without a value are left out.

    Raises:
        InputError: the file cannot be written.
    """
    write_items(path, records)
