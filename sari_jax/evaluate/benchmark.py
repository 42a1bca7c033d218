"""Answers to a file of records, one for each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sari_jax.data.records import Record
from sari_jax.evaluate.attempts import AttemptSettings, attempted
from sari_jax.generate.engine import Engine


def predict(
    engine: Engine,
    records: Sequence[Record],
    attempts: AttemptSettings,
    folder: Path,
    settings: dict[str, Any],
) -> list[dict[str, Any]]:
    """Returns a prediction for each record.

    It holds the question, and `model_output` (the extracted answer, "" if there is none), the whole `completion`, and
    whether its `format` is right; or an `error` if the record's audio cannot be used. A model's own generation
    defaults are never applied.

    Args:
        attempts: settings with a count of one.
    """
    style = attempts.style
    predictions = []
    rows = attempted(engine, records, attempts, folder, settings, "eval")
    for record, row in zip(records, rows, strict=True):
        asked = {
            "id": record.id,
            "question": record.question,
            "choices": list(record.choices),
            "answer": record.choices[record.answer_index],
            "task": record.task,
        }
        if "error" in row:
            predictions.append(asked | {"error": row["error"]})
            continue
        (one,) = row["attempts"]
        text = one["text"]
        answer = {"model_output": style.answer(text) or "", "completion": text}
        predictions.append(asked | answer | {"format": style.matches(text) and one["done"]})
    return predictions
