"""The record: one JSON line per question. Validated on read, written aside and then renamed."""

import contextlib
import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sari_jax.errors import InputError

TASKS = ("sound", "music", "speech")
SECTIONS = ("planning", "caption", "reasoning", "summary")
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
) -> list[Record]:
    """Reads a JSONL; clip paths come back absolute, taken from `audio_root` or else the file's own folder.

    Bad lines are reported on standard error, skipped and counted; more than `max_bad_fraction` of them stop the run.
    Fields that a record has not got are passed over.

    Raises:
        InputError: no such file, no usable line, or too many bad ones; the first is named with line and reason.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file of records")
    root = Path(audio_root or path.parent).absolute()
    records, bad, seen = [], [], set()
    try:
        # Not splitlines(): a question may hold a line separator other than the newline.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = parse_record(line, root, check_audio=check_audio)
            if record.id in seen:
                raise ValueError(f"id {record.id!r} stands twice")
            seen.add(record.id)
            records.append(record)
        except ValueError as error:
            bad.append(f"{path}:{number}: {error}")
    total = len(records) + len(bad)
    if bad and len(bad) > max_bad_fraction * total:
        raise InputError(
            f"{bad[0]} ({len(bad)} of {total} lines are bad, {max_bad_fraction:.1%} allowed);"
            " mend the file or raise data.max_bad_fraction"
        )
    for reason in bad:
        print(f"skipped {reason}", file=sys.stderr)
    if bad:
        print(f"{path}: {len(bad)} of {total} lines skipped", file=sys.stderr)
    if not records:
        raise InputError(f"{path}: holds no record")
    return records


def parse_record(line: str, root: Path, *, check_audio: bool = True) -> Record:
    """One line -> a record.

    Raises:
        ValueError: what is wrong with it.
    """
    try:
        raw = json.loads(line)
        if "\\ud" in line.lower():  # half of a character, which cannot be written again
            json.dumps(raw, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(raw, dict):
        raise ValueError("not a JSON object")
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
    audio = values["audio"]
    if not isinstance(audio, list) or not audio:
        raise ValueError(NOT_CLIPS)
    values["choices"] = tuple(choices)
    values["audio"] = tuple(_clip(clip, root, check_audio) for clip in audio)
    return Record(**values)


def _clip(raw: Any, root: Path, check: bool) -> Clip:
    if not isinstance(raw, dict) or not isinstance(raw.get("path"), str) or not raw["path"]:
        raise ValueError(NOT_CLIPS)
    path = root / raw["path"]
    if check and not os.path.isfile(path):  # unlike Path.is_file, takes any text for a name
        raise ValueError(f"sound file {path} is missing")
    start, end = raw.get("start"), raw.get("end")
    for name, value in (("start", start), ("end", end)):
        if value is not None and not (type(value) in (int, float) and 0 <= value < math.inf):
            raise ValueError(f"audio {name} {value!r} must be seconds, 0 or more")
    if end is not None and end <= (start or 0):
        raise ValueError(f"audio end {end!r} must be after its start {start or 0!r}")
    return Clip(str(path), start, end)


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Writes a JSONL aside and renames it; fields without a value are left out.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with aside.open("w", encoding="utf-8") as file:
            for record in records:
                file.write(json.dumps(_plain(record), ensure_ascii=False) + "\n")
        aside.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); name another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _plain(record: Record) -> dict[str, Any]:
    drop = lambda values: {key: value for key, value in values.items() if value is not None}  # noqa: E731
    return drop(dataclasses.asdict(record)) | {
        "audio": [drop(dataclasses.asdict(c)) for c in record.audio]
    }
