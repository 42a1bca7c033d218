"""The difficulty of each question for a model: its pass rate over several sampled attempts (SARI)."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sari_jax.data.ledger import Ledger
from sari_jax.data.records import Record
from sari_jax.evaluate.attempts import AttemptSettings, attempted
from sari_jax.generate.engine import Engine

UNREADABLE = "sound cannot be taken"


class Rated(NamedTuple):
    """A record with its pass rate, or without one and with the error that its audio or its length gives."""

    record: Record
    error: str = ""


def rated(
    engine: Engine,
    records: Sequence[Record],
    attempts: AttemptSettings,
    folder: Path,
    settings: dict[str, Any],
) -> list[Rated]:
    """Returns each record with its `pass_rate`, the fraction of its attempts that are right; see `attempted`."""
    rows = attempted(engine, records, attempts, folder, settings, "score")
    found = []
    for record, row in zip(records, rows, strict=True):
        tries = row.get("attempts", ())
        rate = sum(one["right"] for one in tries) / len(tries) if tries else None
        rated = dataclasses.replace(record, pass_rate=rate)
        found.append(Rated(record=rated, error=row.get("error", "")))
    return found


def drop_by_pass_rate(
    scored: Sequence[Rated], ledger: Ledger, *, drop_solved: bool = False
) -> list[Record]:
    """Returns the records that a model learns from; the ledger takes the others.

    Records with pass rate 0 are dropped, and those whose audio cannot be used.

    Args:
        drop_solved: drop records with pass rate 1, too.
    """
    kept = []
    for record, error in scored:
        if error:
            ledger.drop(record.id, UNREADABLE, error)
        elif record.pass_rate == 0:
            ledger.drop(record.id, "pass rate 0")
        elif drop_solved and record.pass_rate == 1:
            ledger.drop(record.id, "pass rate 1")
        else:
            kept.append(record)
            ledger.keep()
    return kept
