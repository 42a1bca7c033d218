"""Answers that can be told by where they stand or by how long they are."""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from sari_jax.corpus.synthesize.wording import names_key
from sari_jax.data.records import Record

LENGTH = "answer length"

# Choices that speak of others by their place; questions and chains that speak of choices by place or letter, beside
# what `names_key` finds: there, order has a meaning. Words are in any case; a letter is capital, or before a bracket.
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
    """The right answer as often at each position, among records with as many choices; the others keep their order.

    Records whose question, choices or chains speak of positions stay as they are, and the rest make up for them.

    Returns:
        The records, in their order, and {"choices": {their number: {"before", "after": counts by place}}, "fixed": how
        many stay as they are}.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        groups[len(record.choices)].append(row)
    balanced, counted, fixed = list(records), {}, 0
    generator = np.random.default_rng(seed)
    for size, rows in sorted(groups.items()):
        before = [records[row].answer_index for row in rows]
        free = [row for row in rows if not _speaks_of_places(records[row])]
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


def _speaks_of_places(record: Record) -> bool:
    texts = [record.question, *(record.chain_structured or {}).values(), record.chain_free or ""]
    return any(map(_PLACED.search, record.choices)) or any(
        _LETTERED.search(text) or names_key(text, record.choices) for text in texts
    )


def _moved(record: Record, place: int) -> Record:
    choices = list(record.choices)
    choices.insert(place, choices.pop(record.answer_index))
    return dataclasses.replace(record, choices=tuple(choices), answer_index=place)


def length_report(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """How often the right answer alone is the longest, or the shortest, and how often a choice at random would be."""
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
    """Rows to leave out so that the right answer is the longest, and the shortest, no more often than chance has it.

    Of M records with n choices and one longest, where k times that is right, x of the k go so that k - x = (M - x) / n.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(records))
    gone: dict[int, str] = {}
    while True:
        before = len(gone)
        for name, sign in (("longest", 1), ("shortest", -1)):
            told: dict[int, list[int]] = defaultdict(list)
            right: dict[int, list[int]] = defaultdict(list)
            for row in order:
                record = records[row]
                extreme = None if int(row) in gone else _extreme(record, sign)
                if extreme is not None:
                    told[len(record.choices)].append(int(row))
                    if extreme == record.answer_index:
                        right[len(record.choices)].append(int(row))
            for size, rows in right.items():
                excess = (size * len(rows) - len(told[size])) // (size - 1)
                for row in rows[: max(0, excess)]:
                    gone[row] = f"the right answer is the {name}, more often than chance has it"
        if len(gone) == before:  # leaving out the shortest may bring out the longest
            return gone


def _extreme(record: Record, sign: int) -> int | None:
    """The choice that is longer (or, with -1, shorter) than all others, in letters."""
    sizes = [sign * len(choice) for choice in record.choices]
    top = max(sizes)
    return sizes.index(top) if sizes.count(top) == 1 else None
