"""What a source is, and how any of them becomes a corpus in which every row of its file is accounted for."""

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
    """What a row is converted in.

    Attributes:
        root: where relative sound paths start.
        name: the input file's name without its ending, which tells one split's ids from another's.
        seed: of whatever is chosen by rule.
    """

    root: Path
    name: str
    seed: int


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset as its authors give it.

    Attributes:
        name: for the command line; ids begin with it.
        needs: what the user must have on disk, in a phrase.
        licence: on what terms, as far as is known; None where each row says so itself.
        read: the file -> its rows, or InputError. A row that cannot be read comes as the Drop that says why.
        convert: a row -> the fields of its records and captions, one or more, with an `id` but without `source` and
            `licence` where those of the source apply; or Drop.
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
    """Writes a corpus folder of the source; clip paths in it are absolute. Returns its report.

    A row is kept when all that it gives is valid, and else dropped for the first reason found.

    Args:
        audio_root: where relative sound paths start; else the folder of `path`.
        limit: rows to read at most.
        licence: in place of what the source says.

    Raises:
        InputError: the file is missing or of another form, no row of it can be used, or `out` cannot be written.
    """
    path, out = path.absolute(), vacant(out)
    if told := foreign.data(path):
        raise InputError(f"{path}: {told}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; {source.name} needs {source.needs}")
    root = (audio_root or path.parent).absolute()
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of sounds; name it with --audio-root")
    if licence is not None and not licence.strip():
        raise InputError("--licence is empty; say on what terms the sounds may be used")
    ledger, records, captions = Ledger(), [], []
    for row, items in _walk(source, path, Context(root, path.stem, seed), limit, licence):
        if isinstance(items, ValueError):
            ledger.drop(row, reason_of(items, BAD_FIELD), str(items))
            continue
        ledger.keep()
        records += [item for item in items if isinstance(item, Record)]
        captions += [item for item in items if isinstance(item, Caption)]
    if not ledger.kept:
        raise InputError(_nothing(source, path, ledger))
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
    """Each row's place with what it gave, or what was wrong with it."""
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
    """Held to what is asked of any record that is read, and to what nobody could answer otherwise.

    Raises:
        ValueError: what is wrong with it.
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
    """The item, numbered where its id has come before: sources put together repeat theirs."""
    name = item.id
    while seen[name]:
        seen[item.id] += 1
        name = f"{item.id}-{seen[item.id]}"
    seen[name] += 1
    return dataclasses.replace(item, id=name)


def _counts(values: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _nothing(source: Source, path: Path, ledger: Ledger) -> str:
    if not ledger.dropped:
        return f"{path}: holds no row; {source.name} needs {source.needs}"
    reasons = ledger.report()["dropped"]
    most = next(iter(reasons))
    first = next(dropped for dropped in ledger.dropped if dropped.reason == most)
    return (
        f"{path}: none of {ledger.read} rows can be used; {reasons[most]} for: {most}, the first {first.where}:"
        f" {first.detail or most}; {source.name} needs {source.needs}"
    )
