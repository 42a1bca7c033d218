"""The questions of a run: they are read, checked, and matched with the roster that the run started with."""

import collections
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from sari_jax.data.curriculum import drop
from sari_jax.data.inspection import Inspected, Inspector, inspect, table
from sari_jax.data.ledger import Dropped, Ledger
from sari_jax.data.lengths import audio_lengths
from sari_jax.data.processor import Processor
from sari_jax.data.records import Record, read_records
from sari_jax.data.roster import Entry, Matched, enrol, match
from sari_jax.data.schedule import Schedule, make_schedule
from sari_jax.data.styles import style
from sari_jax.errors import InputError
from sari_jax.parallel import hosts
from sari_jax.train.config import Run
from sari_jax.train.workdir import roster_of

MEND = "mend or remove them, or raise data.max_bad_fraction"


class Questions(NamedTuple):
    """The questions of a run, or its held-out questions.

    Attributes:
        roster: the run's roster, in the order of the records; empty for held-out questions.
        records: None stands for a record that was removed since the run started.
        bad: lines and records that are known to be unusable.
        total: the number of lines in the data file; `data.max_bad_fraction` is a fraction of it.
    """

    roster: list[Entry]
    records: list[Record | None]
    bad: list[Dropped]
    total: int

    def schedule(self, run: Run) -> Schedule:
        """The order of the run. It follows the roster, whatever became of the records since."""
        lengths = None
        if run.data.window > 1:
            lengths = np.array([entry.length for entry in self.roster])
        size, seed = run.batch_size, run.seed
        return make_schedule(
            self.roster, run.data.curriculum, batch_size=size, seed=seed, lengths=lengths
        )


def read_questions(run: Run, workdir: Path, processor: Processor) -> Questions:
    """Reads and checks the training questions. All hosts call this; each checks a part of the records.

    Raises:
        InputError: on every host the same: there is no file, too many records are unusable, fewer than a batch are
            usable, or the corpus is not the one that the run started with.
    """
    with hosts.raise_on_all_hosts():
        ledger, roster = Ledger(), roster_of(workdir)
        # A resumed run finds its questions wherever they are in the file now.
        records = _read(run.data.train, ledger, run.data.limit if roster is None else 0)
        if roster is not None and run.data.limit:
            ledger = (
                Ledger()
            )  # most bad lines of the file do not belong to the run's first N records
        total = len(records) + len(ledger.dropped)
        matched, counts = None, {}
        if roster is None:
            records, counts = _chosen(run, records)
        else:
            matched = match(roster, records, run.data.train)
            records = [record for record in matched.records if record]
            if run.data.limit:
                total = len(roster)
    bad = ledger.dropped + _inspected(
        run, processor, run.data.train, records, answers=run.stage == "sft"
    )
    _refuse_too_many(run, run.data.train, bad, total)
    if matched is not None:
        _log_changes(run, matched)
        return Questions(roster, matched.records, bad, total)
    unusable = {one.where for one in bad}
    records = [record for record in records if record.id not in unusable]
    if counts.get("unsolved") or counts.get("solved"):
        hosts.log(
            f"{run.data.train}: {counts['kept']} records kept; left out: {counts['unsolved']} with pass rate 0,"
            f" {counts['solved']} with pass rate 1"
        )
    return Questions(_enrolled(run, processor, records), records, bad, total)


def read_held_out(run: Run, processor: Processor) -> Questions:
    """Reads the held-out questions that can be asked, in the order of their file. All hosts call this.

    Raises:
        InputError: on every host the same: no file, or too many unusable records.
    """
    if not run.held_out.every:
        return Questions([], [], [], 0)
    path = run.held_out.data
    with hosts.raise_on_all_hosts():
        ledger = Ledger()
        records = _read(path, ledger, run.held_out.limit)
        total = len(records) + len(ledger.dropped)
    bad = ledger.dropped + _inspected(run, processor, path, records, answers=False)
    _refuse_too_many(run, path, bad, total)
    unusable = {one.where for one in bad}
    records = [record for record in records if record.id not in unusable]
    if not records:
        hosts.raise_collectively(f"{path}: no record can be used")
    return Questions([], records, bad, total)


def _refuse_too_many(run: Run, path: str, bad: list[Dropped], total: int) -> None:
    """Logs the unusable records as a table, and refuses more of them than are allowed."""
    if bad:
        hosts.log(table(path, bad, total))
    first = f"the first is {bad[0].where}: {bad[0].detail}" if bad else ""
    if refused := too_many(run, len(bad), total, first):
        hosts.raise_collectively(f"{path}: {refused}")


def too_many(run: Run, bad: int, total: int, which: str) -> str:
    """The error message if more records are unusable than are allowed, or "".

    Args:
        which: names one of them.
    """
    if bad <= run.data.max_bad_fraction * total:
        return ""
    allowed = f"{run.data.max_bad_fraction:.1%} are allowed"
    return f"{bad} of {total} records cannot be used and {allowed}; {which}; {MEND}"


def _read(path: str, ledger: Ledger, limit: int) -> list[Record]:
    if not path:
        raise InputError("config: data.train names no file; give a JSONL of records")
    records = read_records(path, max_bad_fraction=1.0, ledger=ledger, limit=limit)
    if not records and not ledger.dropped:
        raise InputError(f"{path}: holds no record")
    return records


def _chosen(run: Run, records: list[Record]) -> tuple[list[Record], dict[str, int]]:
    """The records that a new run uses, and the number of those that it leaves out by pass rate."""
    dropped = {"unsolved": run.data.drop_unsolved, "solved": run.data.drop_solved}
    known = any(record.pass_rate is not None for record in records)
    if run.stage == "grpo" and known and any(dropped.values()):
        return drop(records, **dropped)
    return records, {}


def _inspected(
    run: Run, processor: Processor, path: str, records: Sequence[Record], *, answers: bool
) -> list[Dropped]:
    """Finds the unusable records: every host checks its part. Clips that are cut are logged."""
    inspector = Inspector(processor, style(run.data.style), run.data.shapes, answers)
    with hosts.raise_on_all_hosts():
        mine = inspect(inspector, records[jax.process_index() :: jax.process_count()])
    bad, fits = [], collections.Counter()
    found = {"bad": [dataclasses.asdict(one) for one in mine.bad], "fits": mine.fits}
    for text in hosts.all_gather_text(json.dumps(found)):
        theirs = json.loads(text)
        bad += [Dropped(**one) for one in theirs["bad"]]
        fits.update(theirs["fits"])
    for line in Inspected(bad, dict(fits)).notes(path):
        hosts.log(line)
    return bad


def _enrolled(run: Run, processor: Processor, records: list[Record]) -> list[Entry]:
    """Makes the roster of a new run."""
    if len(records) < run.batch_size:
        hosts.raise_collectively(
            f"{run.data.train}: {len(records)} usable records are fewer than batch_size {run.batch_size}"
        )
    lengths = None
    if run.data.window > 1:
        with hosts.raise_on_all_hosts():
            sizes = run.data.shapes.audio_seconds
            lengths = audio_lengths(records, sizes, processor.seconds).tolist()
    return enrol(records, lengths)


def _log_changes(run: Run, matched: Matched) -> None:
    counts = {"changed": matched.changed, "gone": matched.gone, "new and not asked": matched.new}
    changes = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    if changes:
        count = len(matched.records)
        hosts.log(f"{run.data.train}: of the {count} questions this run started with: {changes}")
