"""Samples: questions with the completions that a step or an evaluation gave, for people to read."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sari_jax.data.records import Record


class Sample(NamedTuple):
    """A question, by the dataset index of its record, and its completions.

    Attributes:
        completions: for each its `text`, whether it was `done` before the limit, the number of its `tokens`, its
            rewards by name and their `total`, and in GRPO its `advantage`.
    """

    index: int
    completions: list[dict[str, Any]]


def described(
    texts: Sequence[str],
    lengths: Int[np.ndarray, "G"],
    done: Bool[np.ndarray, "G"],
    scores: Sequence[dict[str, float]],
    advantages: Float[np.ndarray, "G"] | None = None,
) -> list[dict[str, Any]]:
    """Describes one question's completions, in the order in which they were sampled."""
    rows = [
        {"text": text, "done": bool(end), "tokens": int(length), **score}
        for text, length, end, score in zip(texts, lengths, done, scores, strict=True)
    ]
    for row, advantage in zip(rows, [] if advantages is None else advantages, strict=False):
        row["advantage"] = round(float(advantage), 6)
    return rows


def sample_row(record: Record, split: str, completions: list[dict[str, Any]]) -> dict[str, Any]:
    """A line of samples.jsonl. A page is made from it without the corpus.

    Args:
        split: "train" or "held_out".
    """
    clips = [
        {name: value for name, value in vars(clip).items() if value is not None}
        for clip in record.audio
    ]
    known = {
        name: value
        for name in ("task", "kind", "difficulty", "source", "pass_rate")
        if (value := getattr(record, name)) is not None
    }
    return {
        "split": split,
        "id": record.id,
        "question": record.question,
        "choices": list(record.choices),
        "answer": record.choices[record.answer_index],
        "audio": clips,
        **known,
        "completions": completions,
    }
