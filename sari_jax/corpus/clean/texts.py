"""Comparison of questions and choices: case, punctuation and order do not count."""

import functools
import re
from collections.abc import Sequence

from rapidfuzz import fuzz

from sari_jax.data.words import normalise

_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")


@functools.lru_cache(maxsize=1 << 17)
def plain_text(text: str) -> str:
    """Returns the normalised text, or the text in lower case where normalising leaves nothing ("?!")."""
    return normalise(text) or " ".join(text.casefold().split())


@functools.lru_cache(maxsize=1 << 17)
def sorted_words(text: str) -> str:
    """Returns the text's words in alphabetical order.

    The letter-by-letter ratio of two such texts is rapidfuzz's token sort ratio.
    """
    return " ".join(sorted(plain_text(text).split()))


def choices_key(choices: Sequence[str]) -> tuple[str, ...]:
    """Returns a key that is the same for the same choices in any order."""
    return tuple(sorted(plain_text(choice) for choice in choices))


def alike(a: str, b: str) -> float:
    """Returns the similarity of two plain texts, 0 to 100; 0 where they contain different numbers."""
    if a == b:
        return 100.0
    if sorted(_NUMBER.findall(a)) != sorted(_NUMBER.findall(b)):
        return 0.0
    return fuzz.ratio(a, b)


def choices_alike(a: Sequence[str], b: Sequence[str]) -> float:
    """Returns the similarity of the least similar pair, 0 to 100, after pairing each choice with the one most like it.

    It is 0 where there are more choices on one side.
    """
    if len(a) != len(b):
        return 0.0
    left, worst = list(b), 100.0
    for choice in a:
        scores = [alike(choice, other) for other in left]
        best = max(scores)
        worst = min(worst, best)
        if best == 0:
            return 0.0
        left.pop(scores.index(best))
    return worst
