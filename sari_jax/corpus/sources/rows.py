"""Readers of datasets' JSON and CSV files, row by row, and checks of fields."""

import csv
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sari_jax import foreign
from sari_jax.data.jsonl import BAD_LINE, json_object
from sari_jax.data.ledger import Drop
from sari_jax.errors import InputError

BAD_FIELD = "bad field"
SOUNDS = (".wav", ".flac", ".mp3", ".ogg")


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | Drop]]:
    """Yields the objects of a JSON list, or of a file with one object on each line; the file's suffix does not matter.

    Raises:
        InputError: the list is not valid JSON, or the file cannot be read.
    """
    if problem := foreign.table(path, lists=True):
        raise InputError(f"{path}: {problem}")
    try:
        with path.open("rb") as file:
            start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
            file.seek(0)
            if start.startswith(b"["):
                yield from _listed(path, file.read())
            else:
                yield from _lines(path, file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _lines(path: Path, file: Iterable[bytes]) -> Iterator[tuple[str, dict[str, Any] | Drop]]:
    for number, raw in enumerate(file, 1):
        where = f"{path}:{number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            if line.strip():
                yield where, json_object(line)
        except UnicodeDecodeError as error:
            yield where, Drop(BAD_LINE, f"not UTF-8 text ({error.reason})")
        except ValueError as error:
            yield where, Drop(BAD_LINE, str(error))


def _listed(path: Path, raw: bytes) -> Iterator[tuple[str, dict[str, Any] | Drop]]:
    try:
        rows = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: starts with '[' but is not valid JSON ({error})") from error
    for number, row in enumerate(rows):
        try:
            yield f"{path}[{number}]", json_object(json.dumps(row))
        except ValueError as error:
            yield f"{path}[{number}]", Drop(BAD_LINE, str(error))


def csv_rows(
    path: Path, needed: Iterable[str], columns: Iterable[str] = ()
) -> Iterator[tuple[str, dict[str, str] | Drop]]:
    """Yields the rows of a CSV as column -> text without surrounding space.

    A row is one line, so that an unclosed quote spoils no other row.

    Args:
        needed: columns that must exist.
        columns: all columns, for a file without a header; lines that begin with # are then skipped.

    Raises:
        InputError: the file cannot be read, or lacks a column.
    """
    header = list(columns)
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                where = f"{path}:{number}"
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                    cells = next(csv.reader([line], skipinitialspace=True, strict=True), [])
                except UnicodeDecodeError:
                    yield where, Drop(BAD_LINE, "not UTF-8 text")
                    continue
                except csv.Error as error:
                    yield where, Drop(BAD_LINE, f"not CSV ({error})")
                    continue
                row = [value.strip() for value in cells]
                if not any(row) or columns and row[0].startswith("#"):
                    continue
                if not header:
                    header = row
                    if missing := [name for name in needed if name not in header]:
                        raise InputError(
                            f"{path}: has no column {', '.join(missing)}, but {', '.join(header[:20])}"
                        )
                elif len(row) != len(header):
                    yield where, Drop(BAD_LINE, f"{len(row)} columns where {len(header)} are named")
                else:
                    yield where, dict(zip(header, row, strict=True))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def text(row: dict[str, Any], *names: str) -> str:
    """Returns the first of these fields that the row has, as text; a number becomes text.

    Raises:
        Drop: the row has none of them, or the first is empty or of another type.
    """
    for name in names:
        value = row.get(name)
        if value is not None:
            value = str(value) if type(value) in (int, float) else value
            if not isinstance(value, str) or not value.strip():
                raise Drop(BAD_FIELD, f"{name} must be text that is not empty")
            return value.strip()
    raise Drop(BAD_FIELD, f"lacks {' or '.join(names)}")


def texts(row: dict[str, Any], name: str) -> list[str]:
    """Returns a field that is a list of non-empty texts.

    Raises:
        Drop: it is not.
    """
    values = row.get(name)
    if not isinstance(values, list) or not all(isinstance(v, str) and v.strip() for v in values):
        raise Drop(BAD_FIELD, f"{name} must be a list of texts that are not empty")
    return [value.strip() for value in values]


def clip(root: Path, *stems: str) -> list[dict[str, str]]:
    """Makes a record's `audio` from the first of these names that exists, with a suffix or without; else the first."""
    for stem in stems:
        for name in (stem, *(stem + ending for ending in SOUNDS)):
            if os.path.isfile(root / name):  # unlike Path.is_file, it accepts any text
                return [{"path": name}]
    first = stems[0]
    return [{"path": first if first.lower().endswith(SOUNDS) else first + SOUNDS[0]}]
