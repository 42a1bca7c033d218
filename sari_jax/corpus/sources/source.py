"""The definition of a source, and the building of a corpus from it with every row accounted for."""

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sari_jax import foreign
from sari_jax.atomic import vacant
from sari_jax.corpus.captions import Caption, make_caption
from sari_jax.corpus.folder import write_corpus
from sari_jax.corpus.sources.rows import BAD_FIELD
from sari_jax.data.ledger import Drop, Ledger, reason_of
from sari_jax.data.records import Record, make_record
from sari_jax.errors import InputError

EMPTY_SOUND = "sound file empty"
SAME_CHOICES = "choices not distinct"

Rows = Iterator[tuple[str, Any]]  # (where, the row, or the Drop that says why it is none)


@dataclasses.dataclass(frozen=True)
class Context:
    """The circumstances of a row's conversion.

    Attributes:
        root: the folder where relative audio paths start.
        name: the input file's name without its suffix; ids contain it where they would else be equal between splits.
        seed: the seed of all choices by rule.
    """

    root: Path
    name: str
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset in the form its authors publish.

    Attributes:
        name: its name on the command line; ids begin with it.
        needs: the files that the user must have on disk, in a phrase.
        licence: the licence, as far as is known; None if each row states its own.
        read: reads the file's rows, or raises InputError. A row that cannot be read is a Drop with the reason.
        convert: makes from a row the fields of its records and captions, one or more, or raises Drop. Each has an `id`;
            `source` and `licence` may be left out where the source's apply.
    """

    name: str
    needs: str
    licence: str | None
    read: Callable[[Path], Rows]
    convert: Callable[[Any, Context], list[dict[str, Any]]]


def build(
    source: Source,
    out: Path,
    *,
    path: Path,
    audio_root: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    licence: str | None = None,
) -> dict[str, Any]:
    """Writes a corpus folder of the source, with absolute clip paths; returns its report.

    A row is kept if all its records and captions are valid. Otherwise it is dropped for the first reason found.

    Args:
        audio_root: the folder where relative audio paths start; by default that of `path`.
        limit: rows to read at most.
        licence: replaces the source's.

    Raises:
        InputError: the file is missing or of another form, no row of it can be used, or `out` cannot be written.
    """
    path = path.absolute()
    out = vacant(out)
    if problem := foreign.data(path):
        raise InputError(f"{path}: {problem}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; {source.name} needs {source.needs}")
    root = (audio_root or path.parent).absolute()
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of audio; name it with --audio-root")
    if licence is not None and not licence.strip():
        raise InputError("--licence is empty; say on what terms the clips may be used")
    ledger = Ledger()
    records: list[Record] = []
    captions: list[Caption] = []
    for row, items in _walk(source, path, Context(root, path.stem, seed), limit, licence):
        if isinstance(items, ValueError):
            ledger.drop(row, reason_of(items, BAD_FIELD), str(items))
            continue
        ledger.keep()
        records += [item for item in items if isinstance(item, Record)]
        captions += [item for item in items if isinstance(item, Caption)]
    if not ledger.kept:
        raise InputError(_nothing_kept(source, path, ledger))
    return write_corpus(
        out,
        ledger,
        records,
        captions,
        source=source.name,
        input=str(path),
        gave={"records": len(records), "captions": len(captions)},
        tasks=_counts(item.task for item in [*records, *captions]),
        kinds=_counts(record.kind for record in records if record.kind),
        licences=_counts(item.licence for item in [*records, *captions]),
    )


def _walk(
    source: Source, path: Path, context: Context, limit: int | None, licence: str | None
) -> Iterator[tuple[str, list[Record | Caption] | ValueError]]:
    """Yields each row's place with its records and captions, or with the error that drops it."""
    same = {} if source.licence is None else {"source": source.name, "licence": source.licence}
    seen: Counter[str] = Counter()
    rows = islice(source.read(path), limit)
    for where, row in tqdm(rows, desc=source.name, unit=" rows", file=sys.stderr, disable=None):
        try:
            if isinstance(row, Drop):
                raise row
            drafts = [same | draft for draft in source.convert(row, context)]
            if licence is not None:
                drafts = [draft | {"licence": licence} for draft in drafts]
            items = [_valid(draft, context.root) for draft in drafts]
        except ValueError as error:
            yield where, error
        else:
            yield where, [_apart(item, seen) for item in items]


def _valid(draft: dict[str, Any], root: Path) -> Record | Caption:
    """Validates a draft as any record or caption that is read; also rejects empty audio and identical choices.

    Raises:
        ValueError: the draft is not valid.
    """
    asks = {"question", "choices"} & draft.keys()
    item = make_record(draft, root) if asks else make_caption(draft, root)
    for clip in item.audio:
        if not Path(clip.path).stat().st_size:
            raise Drop(EMPTY_SOUND, f"sound file {clip.path} is empty")
    if isinstance(item, Record) and len({c.strip().casefold() for c in item.choices}) < 2:
        raise Drop(SAME_CHOICES, f"all choices are {item.choices[0]!r}")
    return item


def _apart(item: Record | Caption, seen: Counter[str]) -> Record | Caption:
    """Returns the item with a number after its id if the id has occurred before, as it may in joined files."""
    name = item.id
    while seen[name]:
        seen[item.id] += 1
        name = f"{item.id}-{seen[item.id]}"
    seen[name] += 1
    return dataclasses.replace(item, id=name)


def _counts(values: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _nothing_kept(source: Source, path: Path, ledger: Ledger) -> str:
    if not ledger.dropped:
        return f"{path}: holds no row; {source.name} needs {source.needs}"
    reasons = ledger.report()["dropped"]
    most = next(iter(reasons))
    first = next(dropped for dropped in ledger.dropped if dropped.reason == most)
    return (
        f"{path}: none of {ledger.read} rows can be used; {reasons[most]} for: {most}, the first {first.where}:"
        f" {first.detail or most}; {source.name} needs {source.needs}"
    )
