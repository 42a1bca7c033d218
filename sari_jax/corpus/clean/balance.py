"""Answers that their position or their length gives away: how many there are, and how to balance them."""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from sari_jax.corpus.synthesize.wording import names_key
from sari_jax.data.records import Record

LENGTH = "answer length"

# In these texts the order of the choices has a meaning: choices that mention others by position (_PLACED), and
# questions and chains that mention choices by position or letter (_LETTERED), beside what `names_key` finds. Words
# match in any case; a letter must be a capital, or stand before a bracket.
_SEVERAL = r"\b(?i:all|any|none|both|neither|either|two)\b"
_LETTERS = r"\b[A-H](?:,? (?i:and|or|nor) |, )[A-H]\b"
_PLACED = re.compile(rf"{_SEVERAL}.*\b(?i:above|below|these)\b|{_LETTERS}")
_LETTERED = re.compile(
    rf"{_SEVERAL} (?i:of )?(?i:the )?(?i:above|below|options|choices|answers)\b|{_LETTERS}"
    r"|\b(?i:option|choice|answer)s?\s*:?\s*[\"'*(]*[A-H]\b|\b[A-Ha-h]\)"
)


def balance_positions(
    records: Sequence[Record], *, seed: int = 0
) -> tuple[list[Record], dict[str, Any]]:
    """Moves right answers so that each position holds equally many, among records with the same number of choices.

    The wrong choices keep their order. Records whose question, choices or chains mention positions are not changed; the
    other records make up for them.

    Returns:
        The records, in their order, and a report: {"choices": {number of choices: {"before", "after": right answers by
        position}}, "fixed": records that were not changed}.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        groups[len(record.choices)].append(row)
    balanced = list(records)
    counted = {}
    fixed = 0
    generator = np.random.default_rng(seed)
    for size, rows in sorted(groups.items()):
        before = [records[row].answer_index for row in rows]
        free = [row for row in rows if not _mentions_positions(records[row])]
        fixed += len(rows) - len(free)
        counts = np.bincount(
            [records[row].answer_index for row in set(rows) - set(free)], minlength=size
        )
        for row in generator.permutation(np.array(free, int)):
            place = int(counts.argmin())
            counts[place] += 1
            balanced[row] = _moved(records[row], place)
        counted[str(size)] = {
            "before": np.bincount(before, minlength=size).tolist(),
            "after": counts.tolist(),
        }
    return balanced, {"choices": counted, "fixed": fixed}


def _mentions_positions(record: Record) -> bool:
    texts = [record.question, *(record.chain_structured or {}).values(), record.chain_free or ""]
    return any(map(_PLACED.search, record.choices)) or any(
        _LETTERED.search(text) or names_key(text, record.choices) for text in texts
    )


def _moved(record: Record, place: int) -> Record:
    choices = list(record.choices)
    choices.insert(place, choices.pop(record.answer_index))
    return dataclasses.replace(record, choices=tuple(choices), answer_index=place)


def length_report(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Returns how often the right answer alone is the longest and the shortest, and the same for a random choice."""
    report = {}
    for name, sign in (("longest", 1), ("shortest", -1)):
        rows = [_extreme(record, sign) for record in records]
        chance = [
            (row is not None) / len(record.choices)
            for row, record in zip(rows, records, strict=True)
        ]
        right = [row == record.answer_index for row, record in zip(rows, records, strict=True)]
        report[name] = {
            "rate": round(float(np.mean(right or [0])), 4),
            "chance": round(float(np.mean(chance or [0])), 4),
        }
    return report


def excess_lengths(records: Sequence[Record], *, seed: int = 0) -> dict[int, str]:
    """Returns rows to leave out, so that the longest choice, and the shortest, is right no more often than by chance.

    Let M records have n choices, one of them the longest, and let the longest be right in k of the M. Then x of those k
    records are left out, so that k - x = (M - x) / n.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(records))
    gone: dict[int, str] = {}
    while True:
        before = len(gone)
        for name, sign in (("longest", 1), ("shortest", -1)):
            candidates: dict[int, list[int]] = defaultdict(list)
            right: dict[int, list[int]] = defaultdict(list)
            for row in order:
                record = records[row]
                extreme = None if int(row) in gone else _extreme(record, sign)
                if extreme is not None:
                    candidates[len(record.choices)].append(int(row))
                    if extreme == record.answer_index:
                        right[len(record.choices)].append(int(row))
            for size, rows in right.items():
                excess = (size * len(rows) - len(candidates[size])) // (size - 1)
                for row in rows[: max(0, excess)]:
                    gone[row] = f"the right answer is the {name}, more often than chance has it"
        # Once more if any row was left out: leaving out the shortest may raise the share of the longest.
        if len(gone) == before:
            return gone


def _extreme(record: Record, sign: int) -> int | None:
    """Returns the index of the one choice with most letters (fewest, with -1); None where several have as many."""
    sizes = [sign * len(choice) for choice in record.choices]
    top = max(sizes)
    return sizes.index(top) if sizes.count(top) == 1 else None
