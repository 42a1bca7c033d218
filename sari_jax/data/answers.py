"""Which choice an answer names, whatever its case, spacing, punctuation or letter."""

import re
import unicodedata
from collections.abc import Sequence

# What carries no meaning. Kept: C# and C, 4/4, -3, 3.5, 1:30, 50% are not C, 44, 3, 35, 130, 50.
_NOISE = re.compile(r"(?!(?<=\d)[.,:](?=\d))(?!(?<!\w)-(?=\d))[^\w\s#♯♭+%/$<>=°]|_")
_APOSTROPHES = re.compile("['\u2019`]")
_LETTER = re.compile(r"(?:\(([a-z])\)|([a-z])[.):]|([a-z])$)\s*(.*)", re.DOTALL)


def normalise(text: str) -> str:
    """Case-folded words, one space between, without the punctuation that carries no meaning."""
    return " ".join(_NOISE.sub(" ", _APOSTROPHES.sub("", _fold(text))).split())


def choice_index(answer: str, choices: Sequence[str]) -> int | None:
    """The index of the one choice that the answer names, or None. Of a choice given twice, the first.

    The choice's own text comes first, so that choices may be letters themselves. A leading letter, "(B) dog" or
    "B. dog", must agree with the text after it; alone, "B", it names the second choice unless a choice holds the
    word "b" and so leaves the meaning open.
    """
    index = _named(answer, choices)
    letter = _LETTER.fullmatch(_fold(answer))
    if index is not None or letter is None:
        return index
    *letters, rest = letter.groups()
    place = ord(next(filter(None, letters))) - ord("a")
    if place >= len(choices):
        return None
    if rest:
        return place if _named(rest, choices) == place else None
    spelt = any(chr(ord("a") + place) in normalise(choice).split() for choice in choices)
    return None if spelt else place


def _fold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _named(answer: str, choices: Sequence[str]) -> int | None:
    """By exact text first, so that what differs in case or punctuation alone stays apart; then ever more freely."""
    for form in (str.strip, _fold, normalise):
        wanted = form(answer)
        same = [i for i, choice in enumerate(choices) if form(choice) == wanted]
        if wanted and same:
            return same[0] if len({choices[i] for i in same}) == 1 else None
    return None
