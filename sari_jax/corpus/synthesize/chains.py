"""Parsing and checks of replies that should hold a chain of thought ending in the right answer."""

import re
from collections.abc import Sequence

from sari_jax.corpus.synthesize.wording import check_words, json_reply, unwrapped
from sari_jax.data.ledger import Drop
from sari_jax.data.records import SECTIONS
from sari_jax.data.words import normalise

INCOMPLETE = "sections are incomplete"
EMPTY = "empty"
NO_ANSWER = "does not end in the right answer"
ALSO_ANOTHER = "ends in another choice too"
GIVEN_EARLY = "planning gives the answer away"


def parse_structured(text: str, choices: Sequence[str], answer_index: int) -> dict[str, str]:
    """Parses and checks a chain in sections; returns the sections in order.

    Raises:
        Drop: the reply breaks a rule.
    """
    raw = json_reply(text)
    if set(raw) != set(SECTIONS):
        raise Drop(INCOMPLETE, f"has {', '.join(raw) or 'none'}")
    for section in SECTIONS:
        if not isinstance(raw[section], str) or not raw[section].strip():
            raise Drop(INCOMPLETE, f"{section} is empty or no text")
    sections = {section: raw[section].strip() for section in SECTIONS}
    for body in sections.values():
        check_words(body, choices)
    answer = choices[answer_index]
    if _concludes(sections["planning"], answer):
        raise Drop(GIVEN_EARLY, sections["planning"])
    _check_end(sections["summary"], choices, answer_index)
    return sections


def parse_free(text: str, choices: Sequence[str], answer_index: int) -> str:
    """Parses and checks a chain in one piece.

    Raises:
        Drop: the reply breaks a rule.
    """
    body = unwrapped(text)
    if not body:
        raise Drop(EMPTY)
    check_words(body, choices)
    _check_end(body, choices, answer_index)
    return body


def _concludes(text: str, answer: str) -> bool:
    pattern = (
        rf"\banswer (?:is|must be|should be|will be) (?:\w+ )?{re.escape(normalise(answer))}\b"
    )
    return re.search(pattern, normalise(text)) is not None


def _check_end(text: str, choices: Sequence[str], answer_index: int) -> None:
    """Checks that the last sentence contains the right choice's words and no other choice's.

    Raises:
        Drop: it does not.
    """
    answer = choices[answer_index]
    right = normalise(answer) or answer
    # A choice may contain a full stop itself: "Mr. Smith".
    text = re.sub(re.escape(answer), lambda _: right, text, flags=re.IGNORECASE)
    *_, last = re.split(r"(?<=[.!?])\s+|\n+", text.strip())
    words = f" {normalise(last)} "
    if f" {right} " not in words:
        raise Drop(NO_ANSWER, last)
    # The right choice is cut out, so that "a dog" does not count as another choice of "a dog and a cat". A longer
    # choice that contains the right one is looked for in the whole sentence.
    rest = words.replace(f" {right} ", " | ")
    for choice in choices:
        other = normalise(choice) or choice
        longer = f" {right} " in f" {other} "
        if other != right and f" {other} " in (words if longer else rest):
            raise Drop(ALSO_ANOTHER, f"{choice}: {last}")
