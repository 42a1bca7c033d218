"""The roster of a run: its questions, written when it starts, so that their order survives changes of the data file.

The order of a run is an order of its roster, not of its data file. A record may be mended or removed while the run is
stopped; every other record keeps its place. A record that is gone is skipped when its turn comes. A record that is new
is not part of the run.
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
# The share of a roster that has to be in the data file, unchanged. Below it the file is another corpus. Ours.
LEAST_KEPT = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """The fields of a record that decide the order of a run.

    Attributes:
        id: the record's id.
        digest: a hash of question, choices, answer, chains and the names and spans of clips.
        source: the record's source, for a mix.
        pass_rate: the record's pass rate, for a curriculum.
        length: the size in samples of the bucket of its longest clip, if batches are made by length.
    """

    id: str
    digest: str
    source: str
    pass_rate: float | None = None
    length: int | None = None


class Matched(NamedTuple):
    """A roster matched with the records that are in the data file now.

    Attributes:
        records: the record of each entry; None for a removed record.
        gone, changed, new: the number of removed, changed and new records.
    """

    records: list[Record | None]
    gone: int
    changed: int
    new: int


def enrol(records: Sequence[Record], lengths: Sequence[int] | None = None) -> list[Entry]:
    """Makes the roster of a run that starts with these records."""
    return [
        Entry(
            id=record.id,
            digest=digest(record),
            source=record.source,
            pass_rate=record.pass_rate,
            length=None if lengths is None else int(lengths[index]),
        )
        for index, record in enumerate(records)
    ]


def match(roster: Sequence[Entry], records: Sequence[Record], name: str) -> Matched:
    """Finds each entry's record by its id.

    Args:
        roster: the roster of the run.
        records: the records that are in the data file now.
        name: the name of the data file, for messages.

    Raises:
        InputError: less than the share `LEAST_KEPT` of the entries is in the file unchanged.
    """
    present = {record.id: record for record in records}
    found = [present.pop(entry.id, None) for entry in roster]
    pairs = zip(roster, found, strict=True)
    changed = sum(record is not None and digest(record) != entry.digest for entry, record in pairs)
    gone = found.count(None)
    same = len(roster) - gone - changed
    if same < LEAST_KEPT * len(roster):
        raise InputError(
            f"{name}: it holds {same} of the {len(roster)} questions of this run unchanged, less than"
            f" {LEAST_KEPT:.0%}, so it is another corpus; give the data the run started with, or name a new --workdir"
        )
    return Matched(records=found, gone=gone, changed=changed, new=len(present))


def write_roster(workdir: Path | str, roster: Sequence[Entry]) -> None:
    """Writes the roster into a run's folder."""
    write_items(Path(workdir) / FILE, roster)


def read_roster(workdir: Path | str) -> list[Entry] | None:
    """Reads the roster of a run that has started; None if there is none yet.

    Raises:
        InputError: the file was changed or cut short.
    """
    path = Path(workdir) / FILE
    return read_items(path, _entry) if path.is_file() else None


def _entry(line: str) -> Entry:
    """Parses a line of the file."""
    raw: dict[str, Any] = json_object(line)
    try:
        return Entry(**raw)
    except TypeError as error:
        raise ValueError(f"not a line of a roster ({error})") from error


def digest(record: Record | None) -> str:
    """Returns a hash of what a record asks: question, choices, answer, chains, and the names and spans of its clips.

    It is "" for a record that is gone.
    """
    if record is None:
        return ""
    # Folders do not count, since the clips may move.
    clips = [[Path(clip.path).name, clip.start, clip.end] for clip in record.audio]
    chains = [record.chain_structured, record.chain_free]
    asked = [record.question, record.choices, record.answer_index, clips, chains]
    content = json.dumps(asked, sort_keys=True)
    return hashlib.sha256(content.encode(errors="backslashreplace")).hexdigest()[:16]
