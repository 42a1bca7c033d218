"""Contamination: questions and audio of a benchmark that are also in a corpus."""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rapidfuzz import fuzz, process

from sari_jax.corpus.clean.texts import alike, choices_alike, choices_key, sorted_words
from sari_jax.data.records import Record
from sari_jax.errors import InputError

TEXT, SOUND = "question of a benchmark", "sound of a benchmark"
# The least similarity of a match, of 100.
QUESTION, CHOICES = 95.0, 85.0
# The same for a question whose choices are equal and belong to few questions.
REWORDED = 60.0
# The same for a question with three equal choices or more that many questions share.
A_WORD = 80.0
# Above this number of questions with the same choices ("yes", "no"), the choices identify no question.
COMMON = 3
# Questions compared at a time.
ROWS = 2_000
# Of a benchmark's rows with nearly the same question, the choices of this many are compared: those that share most
# words.
CLOSEST = 50
# A text is a template, and no leak by itself, if the corpus asks it about more sounds than this for each benchmark row.
TEMPLATE = 5


@dataclasses.dataclass(frozen=True)
class Row:
    """A question of a benchmark, with a name for messages."""

    name: str
    question: str
    choices: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Match:
    """The benchmark rows that match a question of the corpus.

    Attributes:
        detail: the row most like it, in words.
        rows: the number of rows that match.
    """

    detail: str
    rows: int


def read_benchmark(path: str | Path) -> tuple[list[Row], int]:
    """Reads the rows of a JSON or JSONL file that have a question and choices; returns them and the number of others.

    It knows the forms of MMAU, MMAR (choices), MMSU (choice_a to choice_d), R1-AQA (multi_choice) and our own records.

    Raises:
        InputError: the file is not of this kind, or no row of it can be used.
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


def find_questions(records: Sequence[Record], benchmark: Sequence[Row]) -> dict[int, Match]:
    """Finds the rows of the corpus whose question and choices are a benchmark's; returns the match of each.

    Case, punctuation and the order of choices do not count, and one word may be changed. A row with the same question
    but other choices is no match.
    """
    ours = list(map(_text, records))
    theirs = list(map(_text, benchmark))
    same: dict[tuple, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, (question, choices) in enumerate(theirs):
        same[choices][question].append(place)
    asked = {choices: set(questions) for choices, questions in same.items()}
    for question, choices in ours:
        if choices in asked:
            asked[choices].add(question)
    near = _near_questions({q for q, _ in ours}, theirs)
    by_words = {question: _ByWords(places, theirs) for question, places in near.items()}
    matches: dict[tuple, Match] = {}
    for question, choices in set(ours):
        found: dict[int, tuple[float, float]] = {}
        if choices in same:
            # Equal choices that few questions have reveal a reworded question; "yes" and "no" reveal none.
            common = len(asked[choices]) > COMMON
            least = REWORDED if not common else A_WORD if len(choices) > 2 else QUESTION
            for other in _alike(question, list(same[choices]), least):
                score = alike(question, other)
                found |= {place: (score, 100.0) for place in same[choices][other]}
        if question in by_words and all(score < 100 for score, _ in found.values()):
            for place in by_words[question].closest(choices):
                score = choices_alike(choices, theirs[place][1])
                if score >= CHOICES:
                    found[place] = max(
                        found.get(place, (0.0, 0.0)), (alike(question, theirs[place][0]), score)
                    )
        if found:
            (score, of_choices), place = max((scores, place) for place, scores in found.items())
            matches[question, choices] = Match(
                f"of {benchmark[place].name}: question {score:.0f} and choices {of_choices:.0f} of 100 alike",
                len(found),
            )
    return {row: matches[text] for row, text in enumerate(ours) if text in matches}


def template_rows(
    records: Sequence[Record], sounds: Sequence[tuple[int, ...]], found: dict[int, Match]
) -> list[int]:
    """Returns those of the found rows whose text the corpus asks about many sounds; their text alone is no leak.

    "Many" is more than TEMPLATE for each matching row of the benchmark. The benchmark may itself ask the text about
    many sounds, and a corpus may hold all of them.

    Args:
        sounds: the indices of the audio of each record's clips; equal audio has equal indices.
    """
    about = defaultdict(set)
    for row in found:
        about[_text(records[row])].add(sounds[row])
    return [
        row
        for row, match in found.items()
        if len(about[_text(records[row])]) > TEMPLATE * match.rows
    ]


def _text(asked: Record | Row) -> tuple[str, tuple[str, ...]]:
    return sorted_words(asked.question), choices_key(asked.choices)


def _alike(question: str, others: Sequence[str], least: float) -> list[str]:
    near = process.extract(question, others, scorer=fuzz.ratio, score_cutoff=least, limit=None)
    return [other for other, _, _ in near if alike(question, other) >= least]


class _ByWords:
    """An index of a benchmark's rows with nearly the same question, by the words of their choices."""

    def __init__(self, places: Sequence[int], theirs: Sequence[tuple[str, tuple[str, ...]]]):
        self.places = np.array(places)
        self.rows: dict[str, list[int]] = defaultdict(list)
        if len(places) > CLOSEST:
            for row, place in enumerate(places):
                for word in {word for choice in theirs[place][1] for word in choice.split()}:
                    self.rows[word].append(row)

    def closest(self, choices: tuple[str, ...]) -> list[int]:
        """Returns the rows whose choices share most words with these, CLOSEST at most."""
        if len(self.places) <= CLOSEST:
            return self.places.tolist()
        words = {word for choice in choices for word in choice.split()}
        rows = [self.rows[word] for word in words if word in self.rows]
        shared = np.bincount(np.concatenate([*rows, []]).astype(int), minlength=len(self.places))
        most = np.argsort(-shared, kind="stable")[:CLOSEST]
        return self.places[most[shared[most] > 0]].tolist()


def _near_questions(
    questions: set[str], theirs: Sequence[tuple[str, tuple[str, ...]]]
) -> dict[str, list[int]]:
    """Returns for each question the benchmark's rows that ask nearly the same."""
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
