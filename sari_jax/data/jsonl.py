"""JSONL files: every bad line is counted on reading, and a file is written under a temporary name first."""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from sari_jax import foreign
from sari_jax.data.ledger import Ledger, reason_of
from sari_jax.errors import InputError

BAD_LINE = "bad line"
Item = TypeVar("Item")


def read_items(
    path: str | Path,
    parse: Callable[[str], Item],
    *,
    max_bad_fraction: float = 0.0,
    ledger: Ledger | None = None,
    limit: int = 0,
) -> list[Item]:
    """Reads a file's items, one from each line; empty lines are ignored, and no two items may have the same `id`.

    Bad lines are skipped and listed in the ledger, or on standard error if there is none. With a ledger, all lines may
    be bad.

    Args:
        path: the file's path.
        parse: a line -> an item with an `id`; raises ValueError for a bad line.
        max_bad_fraction: share of bad lines that is accepted.
        ledger: takes the bad lines.
        limit: reads no more than this many items; 0 for all.

    Raises:
        InputError: there is no such file, more lines are bad than accepted, or, without a ledger, none is usable. The
            first bad line is named.
    """
    path = Path(path)
    if problem := foreign.data(path) or foreign.table(path):
        raise InputError(f"{path}: {problem}")
    if not path.is_file():
        raise InputError(f"{path}: no such file of records; check the path")
    try:
        with path.open("rb") as file:
            items, bad = _parsed(path, file, parse, limit)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make it readable") from error
    dropped = bad.dropped
    total = len(items) + len(dropped)
    if dropped and len(dropped) > max_bad_fraction * total:
        raise InputError(
            f"{dropped[0].where}: {dropped[0].detail} ({len(dropped)} of {total} lines are bad,"
            f" {max_bad_fraction:.1%} allowed); mend the file or raise data.max_bad_fraction"
        )
    if ledger is not None:
        ledger.dropped += dropped
    elif dropped:
        for line in dropped:
            print(f"skipped {line.where}: {line.detail}", file=sys.stderr)
        print(f"{path}: {len(dropped)} of {total} lines skipped", file=sys.stderr)
    if not items and ledger is None:
        raise InputError(f"{path}: holds no record; give a file with one JSON object a line")
    return items


def _parsed(
    path: Path, file: BinaryIO, parse: Callable[[str], Item], limit: int
) -> tuple[list[Item], Ledger]:
    """Returns the items of a file's lines, and a ledger of the bad lines."""
    items: list[Item] = []
    bad = Ledger()
    seen: set[str] = set()
    # Lines are bytes, since text would also be split at separators other than the newline.
    for number, raw in enumerate(file, 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            if not line.strip():
                continue
            item = parse(line)
            if item.id in seen:
                raise ValueError(f"id {item.id!r} occurs twice")
            seen.add(item.id)
            items.append(item)
        except UnicodeDecodeError as error:
            bad.drop(f"{path}:{number}", BAD_LINE, f"not UTF-8 text ({error.reason})")
        except ValueError as error:
            bad.drop(f"{path}:{number}", reason_of(error, BAD_LINE), str(error))
        if limit and len(items) == limit:
            break
    return items, bad


def json_object(line: str) -> dict[str, Any]:
    """Parses a line that holds one JSON object.

    Raises:
        ValueError: it does not, or its text has half of a surrogate pair, which cannot be written as UTF-8.
    """
    try:
        raw = json.loads(line)
        # An escape may be an unpaired surrogate.
        if "\\ud" in line.lower():
            json.dumps(raw, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(raw, dict):
        raise ValueError("not a JSON object")
    return raw


def write_items(path: str | Path, items: Iterable[Any]) -> None:
    """Writes dataclasses as lines, under a temporary name first; fields that are None are left out.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            for item in items:
                file.write(json.dumps(plain(item), ensure_ascii=False) + "\n")
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); give another path"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def plain(item: Any) -> Any:
    """Converts a dataclass and all within it to dicts and lists; fields that are None are left out."""
    if dataclasses.is_dataclass(item):
        values = {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}
        return {name: plain(value) for name, value in values.items() if value is not None}
    return [plain(part) for part in item] if isinstance(item, tuple | list) else item
