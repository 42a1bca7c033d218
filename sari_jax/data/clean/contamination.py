"""Questions and sounds of a benchmark that stand in a corpus, too."""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rapidfuzz import fuzz, process

from sari_jax.data.clean.texts import alike, choices_alike, choices_key, sorted_words
from sari_jax.data.records import Record
from sari_jax.errors import InputError

TEXT, SOUND = "question of a benchmark", "sound of a benchmark"
QUESTION, CHOICES = 95.0, 85.0  # of 100: alike enough
REWORDED = 60.0  # enough for a question whose choices are the same and are no one else's
A_WORD = 80.0  # enough where several questions share three choices or more
COMMON = 3  # questions that may share their choices before those say nothing ("yes", "no")
ROWS = 2_000  # questions compared at a time


@dataclasses.dataclass(frozen=True)
class Row:
    """A benchmark's question: what it is called, and its text."""

    name: str
    question: str
    choices: tuple[str, ...]


def read_benchmark(path: str | Path) -> tuple[list[Row], int]:
    """Rows with question and choices of a JSON or JSONL file, and how many others it has.

    Read are MMAU, MMAR (choices), MMSU (choice_a to choice_d), R1-AQA (multi_choice), and our own records.

    Raises:
        InputError: not such a file, or no row of it can be used.
    """
    path, rows = Path(path), []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a benchmark ({error})") from error
    items = _items(text)
    for number, item in enumerate(items, 1):
        row = _row(item, f"{path.name} row {number}")
        if row:
            rows.append(row)
    if not rows:
        raise InputError(
            f"{path}: no row has a question and two choices or more; give a benchmark as JSON or JSONL"
        )
    return rows, len(items) - len(rows)


def _items(text: str) -> list[Any]:
    try:
        whole = json.loads(text)
        return whole if isinstance(whole, list) else [whole]
    except (ValueError, RecursionError):
        items = []
        for line in filter(str.strip, text.split("\n")):
            try:
                items.append(json.loads(line))
            except (ValueError, RecursionError):
                items.append(None)
        return items


def _row(item: Any, place: str) -> Row | None:
    if not isinstance(item, dict):
        return None
    question = next((item[k] for k in ("question", "question_text") if item.get(k)), None)
    choices = next((item[k] for k in ("choices", "multi_choice", "options") if item.get(k)), None)
    if choices is None:
        letters = (item.get(f"choice_{letter}") for letter in "abcdefgh")
        choices = [choice for choice in letters if choice is not None]
    if not isinstance(question, str) or not isinstance(choices, list) or len(choices) < 2:
        return None
    name = next((str(item[key]) for key in ("id", "question_id", "audio_id") if item.get(key)), "")
    return Row(f"{place} {name}".strip(), question, tuple(map(str, choices)))


def find_questions(records: Sequence[Record], benchmark: Sequence[Row]) -> dict[int, str]:
    """Rows of the corpus whose question and choices are a benchmark's: which, and how much alike.

    A question is found whatever its case, punctuation and order of choices, and with a word changed; one that has only
    the question in common, and other choices, is not.
    """
    ours = [(sorted_words(r.question), choices_key(r.choices)) for r in records]
    theirs = [(sorted_words(r.question), choices_key(r.choices)) for r in benchmark]
    asked: dict[tuple, set[str]] = defaultdict(set)
    same: dict[tuple, list[int]] = defaultdict(list)
    for place, (question, choices) in enumerate(theirs):
        asked[choices].add(question)
        same[choices].append(place)
    for question, choices in ours:
        if choices in asked:
            asked[choices].add(question)
    near = _near_questions({q for q, _ in ours}, theirs)
    told: dict[tuple, str] = {}
    for question, choices in set(ours):
        best = (0.0, 0.0, -1)
        # Choices that few questions share make a question known again that was reworded; "yes" and "no" make none.
        common = len(asked.get(choices, ())) > COMMON
        least = REWORDED if not common else A_WORD if len(choices) > 2 else QUESTION
        for place in same.get(choices, ()):
            score = alike(question, theirs[place][0])
            if score >= least:
                best = max(best, (score, 100.0, place))
        if best[0] < 100:
            for place in near[question]:
                score = choices_alike(choices, theirs[place][1])
                if score >= CHOICES:
                    best = max(best, (alike(question, theirs[place][0]), score, place))
        if best[2] >= 0:
            told[question, choices] = (
                f"of {benchmark[best[2]].name}: question {best[0]:.0f} and choices {best[1]:.0f} of 100 alike"
            )
    return {row: told[text] for row, text in enumerate(ours) if text in told}


def _near_questions(
    questions: set[str], theirs: Sequence[tuple[str, tuple[str, ...]]]
) -> dict[str, list[int]]:
    """Of each question the benchmark's rows that ask nearly the same."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, (question, _) in enumerate(theirs):
        places[question].append(place)
    columns, rows = sorted(places), sorted(questions)
    found: dict[str, list[int]] = defaultdict(list)
    for first in range(0, len(rows), ROWS):
        part = rows[first : first + ROWS]
        scores = process.cdist(
            part, columns, scorer=fuzz.ratio, score_cutoff=QUESTION, dtype=np.uint8
        )
        for i, j in zip(*np.nonzero(scores), strict=True):
            if alike(part[i], columns[j]) >= QUESTION:
                found[part[i]] += places[columns[j]]
    return found
