"""A benchmark's predictions -> its scores, in the form of `scores.json`."""

import collections
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from sari_jax.data.records import Record
from sari_jax.errors import InputError
from sari_jax.evaluate.matching import matches

GROUPS = ("task", "kind", "difficulty")


def score_predictions(
    records: Sequence[Record],
    predictions: Any,
    *,
    key: str = "model_output",
    match: Callable[[str, str, Sequence[str]], bool] = matches,
) -> dict[str, Any]:
    """Scores a benchmark's predictions file.

    Args:
        predictions: as read from JSON: a list of objects with the record's `id` and, under `key`, the extracted
            answer. No object, no key or null is unanswered; "" is answered, and wrong.
        key: `model_output` is MMAU's, `answer_prediction` is MMAR's.
        match: (answer, prediction, choices) -> right or not.

    Returns:
        `rows`, all; `answered`, how many; `accuracy`, over the `answered` rows (as MMAU's script counts; None if
        there is none) and over `all`; `interval`, 95 % of the latter; `by` task, kind and difficulty, each value's
        `accuracy` over all its rows, its `rows` and its `interval`. Fractions.

    Raises:
        InputError: no records, an id that is twice in either, a prediction of another form or for an unknown id.
    """
    verdicts = judge(records, predictions, key=key, match=match)
    right = np.array([verdict is True for verdict in verdicts])
    answered = sum(verdict is not None for verdict in verdicts)
    return {
        "rows": len(records),
        "answered": answered,
        "accuracy": {
            "answered": float(right.sum() / answered) if answered else None,
            "all": float(right.mean()),
        },
        "interval": bootstrap_interval(right),
        "by": {group: _by(group, records, right) for group in GROUPS},
    }


def judge(
    records: Sequence[Record],
    predictions: Any,
    *,
    key: str = "model_output",
    match: Callable[[str, str, Sequence[str]], bool] = matches,
) -> list[bool | None]:
    """Whether each record was answered right, None where it was not answered; see `score_predictions`."""
    if not records:
        raise InputError("no rows to score; check the benchmark's file")
    ids = _unique([record.id for record in records], "benchmark")
    answers = _answers(predictions, key)
    unknown = sorted(answers.keys() - set(ids))
    if unknown:
        raise InputError(
            f"predictions: {len(unknown)} ids are not in the benchmark ({unknown[0]} is the first);"
            " check that both are of one version"
        )
    return [
        None if text is None else match(record.choices[record.answer_index], text, record.choices)
        for record, text in zip(records, map(answers.get, ids), strict=True)
    ]


def bootstrap_interval(
    right: np.ndarray, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> list[float]:
    """[low, high] of the mean of booleans [N], by percentiles of its bootstrap distribution.

    Drawing N of N booleans with replacement and counting is drawing from a binomial, which is what is done. Where all
    or none are right, whatever is drawn is the same, and 3 of 3 would be certain: the interval is Clopper and
    Pearson's (1934) then, which is exact.
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
    """Per value of a record's field, in alphabetical order; records without one are left out."""
    values = [getattr(record, group) for record in records]
    places = {
        value: [v == value for v in values]
        for value in sorted({v for v in values if v is not None})
    }
    return {
        value: {
            "accuracy": float(right[at].mean()),
            "rows": values.count(value),
            "interval": bootstrap_interval(right[at]),
        }
        for value, at in places.items()
    }


def _answers(predictions: Any, key: str) -> dict[str, str | None]:
    if not isinstance(predictions, list):
        raise InputError(f"predictions: give a list of objects with id and {key}")
    for i, row in enumerate(predictions):
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise InputError(f"predictions: row {i} has no id; give objects with id and {key}")
        if not isinstance(row.get(key), str | None):
            raise InputError(
                f"predictions: {key} of {row['id']} is {row[key]!r}; give the answer's text"
            )
    ids = _unique([row["id"] for row in predictions], "predictions")
    return {name: row.get(key) for name, row in zip(ids, predictions, strict=True)}


def _unique(ids: list[str], what: str) -> list[str]:
    for name, count in collections.Counter(ids).items():
        if count > 1:
            raise InputError(f"{what}: id {name} stands in {count} rows; keep one")
    return ids
