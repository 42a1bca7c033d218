"""Files with one JSON object per line: read with every bad line counted, written aside and then renamed."""

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
    """Every line through `parse`; empty lines count nowhere, and no two items may have the same `id`.

    Bad lines are skipped: listed in the ledger, which may then be all there is, or reported on standard error.

    Args:
        parse: a line -> an item with an `id`, or ValueError.
        limit: items after which nothing more is read; 0: all.

    Raises:
        InputError: no such file, more bad lines than that fraction, or, without a ledger, no usable one; the first bad
            one is named.
    """
    path = Path(path)
    if told := foreign.data(path) or foreign.table(path):
        raise InputError(f"{path}: {told}")
    if not path.is_file():
        raise InputError(f"{path}: no such file of records")
    try:
        with path.open("rb") as file:
            items, bad = _parsed(path, file, parse, limit)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    total, dropped = len(items) + len(bad.dropped), bad.dropped
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
        raise InputError(f"{path}: holds no record")
    return items


def _parsed(
    path: Path, file: BinaryIO, parse: Callable[[str], Item], limit: int
) -> tuple[list[Item], Ledger]:
    """The items of a file's lines, and the lines that are none."""
    items, bad, seen = [], Ledger(), set()
    # Bytes: text would be split at other separators than the newline.
    for number, raw in enumerate(file, 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            if not line.strip():
                continue
            item = parse(line)
            if item.id in seen:
                raise ValueError(f"id {item.id!r} stands twice")
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
    """A line's object.

    Raises:
        ValueError: it is not one, or holds text that cannot be written again.
    """
    try:
        raw = json.loads(line)
        if "\\ud" in line.lower():  # half of a character
            json.dumps(raw, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(raw, dict):
        raise ValueError("not a JSON object")
    return raw


def write_items(path: str | Path, items: Iterable[Any]) -> None:
    """Dataclasses to lines, aside and then renamed; fields without a value are left out.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with aside.open("w", encoding="utf-8") as file:
            for item in items:
                file.write(json.dumps(plain(item), ensure_ascii=False) + "\n")
        aside.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); name another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def plain(item: Any) -> Any:
    """A dataclass as JSON has it, and all within it; fields without a value are left out."""
    if dataclasses.is_dataclass(item):
        values = {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}
        return {name: plain(value) for name, value in values.items() if value is not None}
    return [plain(part) for part in item] if isinstance(item, tuple | list) else item
