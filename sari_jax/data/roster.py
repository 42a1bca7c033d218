"""The questions of a run, written down when it starts, so that its order stays defined when the data file changes.

The order of a run is an order of its roster and not of its data file. A record may be mended or removed while the run
stands still: every other record keeps its place. A record that is gone is skipped when its turn comes. A record that
is new is not part of the run.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sari_jax.data.jsonl import json_object, read_items, write_items
from sari_jax.data.records import Record
from sari_jax.errors import InputError

FILE = "roster.jsonl"
# Ours. Less of a roster than this makes the file another corpus and not a mended one.
LEAST_KEPT = 0.5


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the order of a run needs to know of a record.

    Attributes:
        digest: of question, choices, answer, chains and the names and spans of clips.
        pass_rate: by which a curriculum orders.
        length: samples of the bucket of its longest clip, where batches are made by length.
    """

    id: str
    digest: str
    source: str
    pass_rate: float | None = None
    length: int | None = None


class Matched(NamedTuple):
    """A roster beside the records that are there now.

    Attributes:
        records: of each entry; None where it is gone.
        gone, changed, new: how many records are so.
    """

    records: list[Record | None]
    gone: int
    changed: int
    new: int


def enrol(records: Sequence[Record], lengths: Sequence[int] | None = None) -> list[Entry]:
    """The roster of a run that starts with these records."""
    return [
        Entry(
            record.id,
            digest(record),
            record.source,
            record.pass_rate,
            None if lengths is None else int(lengths[index]),
        )
        for index, record in enumerate(records)
    ]


def match(roster: Sequence[Entry], records: Sequence[Record], name: str) -> Matched:
    """Finds each entry's record by its id.

    Args:
        name: of the data file, for messages.

    Raises:
        InputError: fewer than `LEAST_KEPT` of the entries are there as they were.
    """
    there = {record.id: record for record in records}
    found = [there.pop(entry.id, None) for entry in roster]
    pairs = zip(roster, found, strict=True)
    changed = sum(record is not None and digest(record) != entry.digest for entry, record in pairs)
    gone = found.count(None)
    same = len(roster) - gone - changed
    if same < LEAST_KEPT * len(roster):
        raise InputError(
            f"{name}: {same} of the {len(roster)} questions of this run are in it as they were, under"
            f" {LEAST_KEPT:.0%}: it is another corpus; give the run's own data, or name a new --workdir"
        )
    return Matched(found, gone, changed, len(there))


def write_roster(workdir: Path | str, roster: Sequence[Entry]) -> None:
    write_items(Path(workdir) / FILE, roster)


def read_roster(workdir: Path | str) -> list[Entry] | None:
    """The roster of a run that has started; None where there is none yet.

    Raises:
        InputError: the file was changed or cut short.
    """
    path = Path(workdir) / FILE
    return read_items(path, _entry) if path.is_file() else None


def _entry(line: str) -> Entry:
    raw: dict[str, Any] = json_object(line)
    try:
        return Entry(**raw)
    except TypeError as error:
        raise ValueError(f"not a line of a roster ({error})") from error


def digest(record: Record | None) -> str:
    """A digest of what a record asks: question, choices, answer, chains and the names and spans of its clips.

    Nothing for a record that is gone.
    """
    if record is None:
        return ""
    # Names and not folders of clips: these may move.
    clips = [[Path(clip.path).name, clip.start, clip.end] for clip in record.audio]
    chains = [record.chain_structured, record.chain_free]
    asked = [record.question, record.choices, record.answer_index, clips, chains]
    content = json.dumps(asked, sort_keys=True)
    return hashlib.sha256(content.encode(errors="backslashreplace")).hexdigest()[:16]
