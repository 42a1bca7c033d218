"""Answers a file of records, one answer to each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sari_jax.data.records import Record
from sari_jax.evaluate.attempts import Attempts, attempted
from sari_jax.generate.engine import Engine


def predict(
    engine: Engine,
    records: Sequence[Record],
    attempts: Attempts,
    folder: Path,
    settings: dict[str, Any],
) -> list[dict[str, Any]]:
    """One row per record: `id`, `model_output` (the extracted answer, "" if there is none), `completion`, `format`.

    Of a record whose sound cannot be taken, `error` instead of these three. A model's own generation defaults are
    never applied.

    Args:
        attempts: of which there is one for each record.
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
