"""Answers a file of records and scores it."""

import sys
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from sari_jax.data.processor import Shapes
from sari_jax.data.records import Record
from sari_jax.data.styles import Style
from sari_jax.generate.engine import Engine


def predict(
    engine: Engine,
    records: Sequence[Record],
    style: Style,
    *,
    max_tokens: int = 512,
    temperature: float = 0.0,
    rows: int = 8,
    shapes: Shapes = Shapes(),
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row per record: `id`, `model_output` (the extracted answer, "" if there is none), `completion`, `format`.

    Greedy unless a temperature is given; a model's own generation defaults are never applied.
    """
    sampler = engine.sampler(1, max_tokens, temperature)
    answered = engine.answer_records(records, style, sampler, shapes, rows=rows, seed=seed)
    bar = tqdm(
        zip(records, answered, strict=True),
        total=len(records),
        desc="eval",
        file=sys.stderr,
        disable=None,
    )
    predictions = []
    for record, result in bar:
        text = result.texts[0]
        predictions.append(
            {
                "id": record.id,
                "question": record.question,
                "choices": list(record.choices),
                "answer": record.choices[record.answer_index],
                "task": record.task,
                "model_output": style.answer(text) or "",
                "completion": text,
                "format": style.matches(text) and result.ended[0],
            }
        )
    return predictions
