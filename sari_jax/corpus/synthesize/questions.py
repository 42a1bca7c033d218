"""Parsing and checks of replies that should hold a question with four choices, and the order of the choices."""

import dataclasses
import hashlib
import random
import re
from collections.abc import Sequence

from sari_jax.corpus.synthesize.wording import check_words, json_reply
from sari_jax.data.answers import choice_index, normalise
from sari_jax.data.ledger import Drop

CHOICES = 4
INCOMPLETE = "lacks question, choices or answer"
NOT_FOUR = "not four distinct choices"
NO_ONE_ANSWER = "answer is not exactly one choice"
OF_OTHERS = "a choice speaks of the others"
GIVEN_AWAY = "question gives its answer away"
_ABOUT_OTHERS = {
    f"{which}{of}{what}"
    for which in ("all", "none", "both", "any", "neither")
    for of in (" of ", " ")
    for what in ("the above", "these", "them", "the others", "the options", "the choices", "above")
} | {"all", "none", "both", "neither"}
_BY_LETTER = re.compile(r"(?:both |either |neither )?[a-d] (?:and|or|nor) [a-d]")


@dataclasses.dataclass(frozen=True)
class Question:
    """A question that passed every check; the order of its choices is the model's.

    Attributes:
        answer: one of the choices.
    """

    question: str
    choices: tuple[str, ...]
    answer: str


def parse_question(text: str) -> Question:
    """Parses and checks a reply.

    Raises:
        Drop: the reply breaks a rule.
    """
    raw = json_reply(text)
    question, choices, answer = (raw.get(name) for name in ("question", "choices", "answer"))
    if not _is_text(question) or not isinstance(choices, list) or not _is_text(answer):
        raise Drop(INCOMPLETE)
    if not all(_is_text(choice) and normalise(choice) for choice in choices):
        raise Drop(NOT_FOUR, "a choice is empty or no text")
    question = question.strip()
    choices = _without_letters([choice.strip() for choice in choices])
    if len(choices) != CHOICES or len({normalise(choice) for choice in choices}) < CHOICES:
        raise Drop(NOT_FOUR, " | ".join(choices))
    index = choice_index(answer, choices)
    if index is None:
        raise Drop(NO_ONE_ANSWER, answer)
    _check_words(question, choices, index)
    return Question(question, tuple(choices), choices[index])


def balanced(
    questions: Sequence[tuple[str, Question]], seed: int
) -> list[tuple[tuple[str, ...], int]]:
    """Returns each question's choices in their final order, and the index of the right one.

    Questions take the positions 0 to 3 in turn, in an order drawn from seed and ids. So over the corpus each position
    is right equally often, give or take one. The wrong choices are shuffled by seed and id.
    """
    drawn = sorted(range(len(questions)), key=lambda i: draw(seed, questions[i][0]))
    places = {i: turn % CHOICES for turn, i in enumerate(drawn)}
    dealt = []
    for i, (name, question) in enumerate(questions):
        choices = shuffled(
            [choice for choice in question.choices if choice != question.answer], seed, name
        )
        choices.insert(places[i], question.answer)
        dealt.append((tuple(choices), places[i]))
    return dealt


def shuffled(choices: Sequence[str], seed: int, name: str) -> list[str]:
    """Returns the choices in an order drawn from seed and id; the order they come in does not matter."""
    order = sorted(choices)
    random.Random(draw(seed, name)).shuffle(order)
    return order


def draw(seed: int, name: str) -> int:
    """Returns a number of 64 bits that seed and id determine."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8])


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _without_letters(choices: list[str]) -> list[str]:
    """Removes "A. ", "B. ", ... from the choices, if all four begin so."""
    for form in ("{}. ", "{}) ", "({}) ", "{}: "):
        marks = [form.format(letter) for letter in "ABCD"]
        if len(choices) == CHOICES and all(map(str.startswith, choices, marks)):
            bare = [c.removeprefix(mark).strip() for c, mark in zip(choices, marks, strict=True)]
            return bare if all(bare) else choices
    return choices


def _check_words(question: str, choices: Sequence[str], index: int) -> None:
    for choice in choices:
        words = normalise(choice)
        if words in _ABOUT_OTHERS or _BY_LETTER.fullmatch(words):
            raise Drop(OF_OTHERS, choice)
    for text in (question, *choices):
        check_words(text, choices)
    named = [f" {normalise(choice)} " in f" {normalise(question)} " for choice in choices]
    # A question that names several choices asks which of them it is.
    if named[index] and sum(named) == 1:
        raise Drop(GIVEN_AWAY, choices[index])
