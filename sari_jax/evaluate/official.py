"""Scores of a predictions file in a benchmark's own form, equal to those of the benchmark's script."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sari_jax.errors import InputError
from sari_jax.evaluate.benchmarks import (
    DIGESTS,
    PUBLISHED,
    Benchmark,
    Row,
    check_row,
    is_answerable,
    is_version,
)
from sari_jax.evaluate.scores import bootstrap_interval


def score_rows(benchmark: Benchmark, rows: Sequence[Row]) -> dict[str, Any]:
    """Scores rows one by one, as the benchmark's script does. A repeated id counts each time.

    Args:
        rows: the rows that `joined` returns; a row without a prediction under the benchmark's key is unanswered.

    Returns:
        A dictionary with

        - `checked`: whether these are known to be all the rows of this version;
        - `rows`, the number of rows; `answered`, the number of rows with a prediction, which may be ""; `unreadable`
          and `empty`, the numbers of such predictions; `repeated`, the number of repeated ids;
          `answer_not_a_choice`, the number of rows whose right answer is none of their choices;
        - `official`: the `accuracy` that the benchmark's script gives (its mean, if the script guesses; None if it
          counts no row), and the number of `rows` that it counts;
        - `accuracy` over the `answered` rows (None if there are none) and over `all`; an unreadable prediction is
          wrong in both; `interval`, the 95 % interval of the accuracy over `all`;
        - `by` group and value: `rows`, the `accuracy` over them, the numbers `answered` and `right`, and `official`;
        - `published`, the figures of the same version; none if the version is not certain;
        - `fail_rate`, if the script guesses: the fraction of the answered rows that it cannot read.

    Raises:
        InputError: these are the rows of another version.
    """
    checked = is_version(benchmark, rows)
    said = [row.get(benchmark.key) for row in rows]
    judged = [
        None if text is None else benchmark.is_right(row, text)
        for row, text in zip(rows, said, strict=True)
    ]
    counted = [benchmark.counted(row, verdict) for row, verdict in zip(rows, judged, strict=True)]
    names = [str(row[benchmark.name_of_row]) for row in rows if benchmark.name_of_row in row]
    answered = np.array([text is not None for text in said])
    right = np.array([verdict is True for verdict in judged])
    official = np.array([np.nan if value is None else value for value in counted])
    count = int(answered.sum())
    unreadable = count - judged.count(True) - judged.count(False)
    same = checked if benchmark.name in DIGESTS else len(rows) == benchmark.size
    return {
        "benchmark": benchmark.name,
        "version": benchmark.version,
        "checked": checked,
        "rule": benchmark.rule,
        "rows": len(rows),
        "answered": count,
        "official": _official(official),
        "accuracy": {
            "answered": float(right.sum() / count) if count else None,
            "all": float(right.mean()),
        },
        "interval": bootstrap_interval(right),
        "unreadable": unreadable,
        "empty": sum(text is not None and not text.strip() for text in said),
        "answer_not_a_choice": sum(not is_answerable(benchmark, row) for row in rows),
        **({"fail_rate": unreadable / count if count else None} if benchmark.guesses else {}),
        "repeated": len(names) - len(set(names)),
        "by": {group: _by(group, rows, right, answered, official) for group in benchmark.groups},
        "published": PUBLISHED.get(benchmark.name, {}) if same else {},
    }


def joined(
    benchmark: Benchmark, predictions: Sequence[Row], questions: Sequence[Row] = ()
) -> list[Row]:
    """Returns the predictions with their questions, and then the questions that no prediction names.

    Args:
        predictions: rows with or without a prediction under the benchmark's key. A row needs its question, or the
            name of one.
        questions: the benchmark's rows. Their values replace those of the predictions, except for the prediction.

    Raises:
        InputError: the answers are withheld; an id is not among the questions; a row has no question; or a row differs
            from its question in a field that is scored, so that the files are of different versions.
    """
    if benchmark.answer is None:
        raise InputError(
            f"{benchmark.name}: its answers are withheld; submit predictions.json to the benchmark's own server"
        )
    name_of = benchmark.name_of_row
    known: dict[str, Row] = {}
    for number, question in enumerate(questions):
        where = f"the benchmark's file: row {number}"
        if name_of not in question:
            raise InputError(f"{where} lacks {name_of!r}")
        asked = {field: value for field, value in question.items() if field != benchmark.key}
        name = str(question[name_of])
        _check_same(benchmark, asked, known.setdefault(name, asked), f"{where}: {name!r}")
    rows, seen = [], set()
    for number, prediction in enumerate(predictions):
        where, name = f"predictions: row {number}", str(prediction.get(name_of))
        if known and name not in known:
            raise InputError(
                f"{where}: {name_of} {name!r} is not in the benchmark's file; give two files of one version"
            )
        asked = known.get(name, {})
        _check_same(benchmark, prediction, asked, f"{where}: {name!r}")
        rows.append(prediction | asked)
        check_row(rows[-1], benchmark, where)
        seen.add(name)
    rows += [row for name, row in known.items() if name not in seen]
    if not rows:
        raise InputError("predictions: no rows to score")
    return rows


def _check_same(benchmark: Benchmark, row: Row, question: Row, where: str) -> None:
    for field in (*benchmark.answer_fields, *benchmark.group_fields):
        if field in row and field in question and row[field] != question[field]:
            raise InputError(
                f"{where}: its {field} is {row[field]!r}, and {question[field]!r} in the benchmark's file; give two"
                " files of one version"
            )


def verdicts(benchmark: Benchmark, rows: Sequence[Row]) -> list[Row]:
    """Returns the `id` of each row, and whether its answer is `right` by the benchmark's rule.

    Args:
        rows: predictions joined with their questions.
    """
    return [
        {
            "id": row.get(benchmark.name_of_row, index),
            "right": row.get(benchmark.key) is not None
            and benchmark.is_right(row, row[benchmark.key]) is True,
        }
        for index, row in enumerate(rows)
    ]


def _official(counted: np.ndarray) -> dict[str, Any]:
    """Returns `accuracy` and the number of `rows` it is over, as the benchmark's script would print them.

    Args:
        counted: [N], what the script counts for each row; NaN if it leaves the row out.
    """
    counted = counted[~np.isnan(counted)]
    return {
        "accuracy": float(counted.sum() / counted.size) if counted.size else None,
        "rows": counted.size,
    }


def _by(
    group: str,
    rows: Sequence[Row],
    right: np.ndarray,
    answered: np.ndarray,
    official: np.ndarray,
) -> dict[str, Any]:
    """Returns scores for each value, in alphabetical order; a row with several values counts in each of them."""
    indices: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        for value in dict.fromkeys(_values(group, row)):
            indices.setdefault(value, []).append(index)
    return {
        value: {
            "accuracy": float(right[at].mean()),
            "rows": len(at),
            "answered": int(answered[at].sum()),
            "right": int(right[at].sum()),
            "official": _official(official[at]),
            "interval": bootstrap_interval(right[at]),
        }
        for value, at in sorted(indices.items())
    }


def _values(group: str, row: Row) -> list[str]:
    parts = [row.get(field) for field in group.split(" / ")]
    if len(parts) > 1:
        return [] if None in parts else [" / ".join(map(str, parts))]
    values = parts[0] if isinstance(parts[0], list) else parts
    return [str(value) for value in values if value is not None]
