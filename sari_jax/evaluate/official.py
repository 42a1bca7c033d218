"""Scores of a predictions file in a benchmark's own form, equal to those of its own script."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sari_jax.errors import InputError
from sari_jax.evaluate.benchmarks import PUBLISHED, Benchmark, Row, check_row
from sari_jax.evaluate.scores import bootstrap_interval


def score_rows(
    benchmark: Benchmark, predictions: Sequence[Row], questions: Sequence[Row] = ()
) -> dict[str, Any]:
    """Scores predictions row by row, as the benchmark's script does: a repeated id counts as often as it stands.

    Args:
        predictions: rows with a prediction under the benchmark's key, or without, which is unanswered. A row needs its
            question, or the name of one.
        questions: the benchmark's rows; those that no prediction names are unanswered.

    Returns:
        `rows`, all; `answered`, those with a prediction, "" among them; `unreadable` of these; `accuracy` over the
        `answered` rows (the script's figure; None if there is none) and over `all`; `interval`, 95 % of the latter;
        `by` group and value, `accuracy` over all its `rows`, how many were `answered` and `right`; `repeated` ids;
        `published` figures of the same version. Fractions. Where the script guesses what it cannot read, that counts
        as wrong in all of these, and besides there are `expected_official`, the script's accuracy over the answered
        rows on average over its guesses, and `fail_rate`, which fraction of them it has to guess.

    Raises:
        InputError: answers are withheld; an id that is none of the questions', a row without a question, or one whose
            answer differs from its question's: the files are of different versions.
    """
    rows = joined(benchmark, predictions, questions)
    name_of = benchmark.name_of_row
    names = [str(row[name_of]) for row in predictions if name_of in row]
    said = [row.get(benchmark.key) for row in rows]
    judged = [
        None if text is None else benchmark.right(row, text)
        for row, text in zip(rows, said, strict=True)
    ]
    answered = np.array([text is not None for text in said])
    right = np.array([verdict is True for verdict in judged])
    judgements = zip(rows, said, judged, strict=True)
    unread = [row for row, text, verdict in judgements if text is not None and verdict is None]
    return {
        "benchmark": benchmark.name,
        "version": benchmark.version,
        "rule": benchmark.rule,
        **_accuracy(right, answered),
        "unreadable": len(unread),
        **(_guessed(benchmark, unread, right, answered) if benchmark.guesses else {}),
        "repeated": len(names) - len(set(names)),
        "by": {group: _by(group, rows, right, answered) for group in benchmark.groups},
        "published": PUBLISHED.get(benchmark.name, {}),
    }


def joined(benchmark: Benchmark, predictions: Sequence[Row], questions: Sequence[Row]) -> list[Row]:
    """The predictions with all of their questions, and the questions that no prediction names; see `score_rows`."""
    if benchmark.answer is None:
        raise InputError(
            f"{benchmark.name}: its answers are withheld; hand predictions.json in where it is scored"
        )
    name_of = benchmark.name_of_row
    for number, question in enumerate(questions):
        if name_of not in question:
            raise InputError(f"the benchmark's file: row {number} lacks {name_of!r}")
    known = {str(row[name_of]): row for row in questions}
    rows, seen = [], []
    for number, prediction in enumerate(predictions):
        name = str(prediction.get(name_of))
        if known and name not in known:
            raise InputError(
                f"predictions: row {number}: {name_of} {name!r} is not in the benchmark's file; are both of one"
                " version?"
            )
        row = {**known.get(name, {}), **prediction}
        check_row(row, benchmark, f"predictions: row {number}")
        if known and benchmark.answer(row) != benchmark.answer(known[name]):
            raise InputError(
                f"predictions: row {number}: its answer is not that of {name!r} in the benchmark's file; are both of"
                " one version?"
            )
        rows.append(row)
        seen.append(name)
    missing = {name: row for name, row in known.items() if name not in set(seen)}
    rows += [{k: v for k, v in row.items() if k != benchmark.key} for row in missing.values()]
    if not rows:
        raise InputError("predictions: no rows to score")
    return rows


def verdicts(benchmark: Benchmark, rows: Sequence[Row]) -> list[Row]:
    """Of rows with their questions, `id` and whether the answer is `right`."""
    return [
        {
            "id": row.get(benchmark.name_of_row, place),
            "right": row.get(benchmark.key) is not None
            and benchmark.right(row, row[benchmark.key]) is True,
        }
        for place, row in enumerate(rows)
    ]


def _accuracy(right: np.ndarray, answered: np.ndarray) -> dict[str, Any]:
    count = int(answered.sum())
    return {
        "rows": right.size,
        "answered": count,
        "accuracy": {
            "answered": float(right.sum() / count) if count else None,
            "all": float(right.mean()),
        },
        "interval": bootstrap_interval(right),
    }


def _guessed(
    benchmark: Benchmark, unread: Sequence[Row], right: np.ndarray, answered: np.ndarray
) -> dict[str, float | None]:
    chances = [(benchmark.choices(row), benchmark.answer(row)) for row in unread]
    lucky = sum(choices.count(answer) / len(choices) for choices, answer in chances)
    count = int(answered.sum())
    return {
        "expected_official": float((right.sum() + lucky) / count) if count else None,
        "fail_rate": len(unread) / count if count else None,
    }


def _by(group: str, rows: Sequence[Row], right: np.ndarray, answered: np.ndarray) -> dict[str, Any]:
    """Per value, in alphabetical order; a row with several values counts in each, one without in none."""
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        value = row.get(group)
        for one in dict.fromkeys(value if isinstance(value, list) else [value]):
            if one is not None:
                places.setdefault(str(one), []).append(place)
    return {
        value: {
            "accuracy": float(right[at].mean()),
            "rows": len(at),
            "answered": int(answered[at].sum()),
            "right": int(right[at].sum()),
            "interval": bootstrap_interval(right[at]),
        }
        for value, at in sorted(places.items())
    }
