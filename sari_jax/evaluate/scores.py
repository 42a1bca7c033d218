"""Scores of a benchmark's predictions, in the form of `scores.json`."""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from sari_jax.data.answers import is_right
from sari_jax.data.records import Record
from sari_jax.errors import InputError

GROUPS = ("task", "kind", "difficulty")
# The field of a prediction.
KEY = "model_output"
# The fraction of the rows that should have an answer.
ENOUGH = 0.95
# Keys in a message, at most.
_SHOWN = 12


def score_predictions(
    records: Sequence[Record],
    predictions: Any,
) -> dict[str, Any]:
    """Scores predictions for records, by the rule of `sari_jax.data.answers`.

    Args:
        predictions: the content of the JSON file: a list of objects with the record's `id` and, under `model_output`,
            the extracted answer. A record without an object or a key, or with null, is unanswered. "" is a wrong
            answer.

    Returns:
        `rows`, the number of records; `answered`, the number with an answer; `empty`, the number of answers "";
        `accuracy` over the `answered` rows, as MMAU's script counts (None if there are none), and over `all`;
        `interval`, the 95 % interval of the accuracy over `all`; `by` task, kind and difficulty, for each value the
        `accuracy` over all its rows, its `rows` and its `interval`. Accuracies and intervals are fractions.

    Raises:
        InputError: there are no records, an id comes twice among the records or the predictions, or a prediction has
            another form or an unknown id.
    """
    verdicts = judge(records, predictions)
    right = np.array([verdict is True for verdict in verdicts])
    answered = sum(verdict is not None for verdict in verdicts)
    given = _answers(predictions).values()
    return {
        "rows": len(records),
        "answered": answered,
        "empty": sum(text is not None and not text.strip() for text in given),
        "accuracy": {
            "answered": float(right.sum() / answered) if answered else None,
            "all": float(right.mean()),
        },
        "interval": bootstrap_interval(right),
        "by": {group: _by(group, records, right) for group in GROUPS},
    }


def judge(records: Sequence[Record], predictions: Any) -> list[bool | None]:
    """Returns whether each record was answered right, None if it was not answered; see `score_predictions`."""
    if not records:
        raise InputError("no rows to score; check the benchmark's file")
    ids = _unique([record.id for record in records], "benchmark")
    answers = _answers(predictions)
    unknown = sorted(answers.keys() - set(ids))
    if unknown:
        raise InputError(
            f"predictions: {len(unknown)} ids are not in the benchmark ({unknown[0]} is the first);"
            " check that both are of one version"
        )
    return [
        None if text is None else is_right(text, record.choices, record.answer_index)
        for record, text in zip(records, map(answers.get, ids), strict=True)
    ]


def bootstrap_interval(
    right: np.ndarray, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> list[float]:
    """Returns [low, high] of the mean of booleans [N], by percentiles of its bootstrap distribution.

    The number of true values among N drawn with replacement has a binomial distribution, from which this draws. If all
    or none are true, every draw is the same, and the bootstrap would call 3 of 3 certain. The interval is then that of
    Clopper and Pearson (1934), which is exact.
    """
    if right.all() or not right.any():
        exact = binomtest(int(right.sum()), right.size).proportion_ci(level, method="exact")
        return [float(exact.low), float(exact.high)]
    means = np.random.default_rng(seed).binomial(right.size, right.mean(), resamples) / right.size
    tail = (1 - level) / 2
    return [float(end) for end in np.quantile(means, [tail, 1 - tail])]


def _by(
    group: str, records: Sequence[Record], right: np.ndarray
) -> dict[str, dict[str, float | int]]:
    """Returns scores for each value of a record's field, in alphabetical order; records without one are left out."""
    values = [getattr(record, group) for record in records]
    masks = {
        value: [v == value for v in values]
        for value in sorted({v for v in values if v is not None})
    }
    return {
        value: {
            "accuracy": float(right[mask].mean()),
            "rows": values.count(value),
            "interval": bootstrap_interval(right[mask]),
        }
        for value, mask in masks.items()
    }


def check_answered(predictions: Sequence[dict[str, Any]], key: str, where: str) -> None:
    """Checks that some row has an answer.

    Raises:
        InputError: none has; the message names the rows' keys, or why the first row has no answer.
    """
    if any(row.get(key) is not None for row in predictions):
        return
    errors = [row["error"] for row in predictions if isinstance(row.get("error"), str)]
    if errors:
        raise InputError(
            f"{where}: none of {len(predictions)} questions could be answered; the first: {errors[0]}"
        )
    raise InputError(
        f"{where}: none of {len(predictions)} rows has an answer under {key!r}; the rows have the keys"
        f" {seen_keys(predictions)}; write the answers under {key!r}"
    )


def seen_keys(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the keys of all rows, in order of appearance, for a message."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(map(ascii, keys[:_SHOWN])) + more if keys else "(none)"


def doubts(scores: dict[str, Any]) -> list[str]:
    """Returns warnings about the scores for their reader, one line each."""
    found = []
    rows = scores["rows"]
    empty = scores.get("empty", 0)
    if scores["answered"] - empty < ENOUGH * rows:
        found.append(
            f"{scores['answered'] - empty} of {rows} rows have an answer ({rows - scores['answered']} have none,"
            f" {empty} an empty one); the accuracy over all rows counts the others as wrong"
        )
    if count := scores.get("answer_not_a_choice", 0):
        found.append(
            f"in {count} of {rows} rows the right answer is not among the choices; they are scored as the benchmark's"
            " script scores them"
        )
    return found


def _answers(predictions: Any) -> dict[str, str | None]:
    if not isinstance(predictions, list):
        raise InputError(f"predictions: not a list; give a list of objects with id and {KEY}")
    for i, row in enumerate(predictions):
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            seen = f"; it has {seen_keys([row])}" if isinstance(row, dict) else ""
            raise InputError(
                f"predictions: row {i} has no id{seen}; give objects with id and {KEY}"
            )
        if not isinstance(row.get(KEY), str | None):
            raise InputError(
                f"predictions: {KEY} of {row['id']} is {row[KEY]!r}; give the answer's text"
            )
    ids = _unique([row["id"] for row in predictions], "predictions")
    return {name: row.get(KEY) for name, row in zip(ids, predictions, strict=True)}


def _unique(ids: list[str], what: str) -> list[str]:
    for name, count in collections.Counter(ids).items():
        if count > 1:
            raise InputError(f"{what}: id {name} is in {count} rows; keep one")
    return ids
