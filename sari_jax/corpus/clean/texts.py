"""Questions and choices as they are compared: without case, punctuation and order, and word by word."""

import functools
import re
from collections.abc import Sequence

from rapidfuzz import fuzz

from sari_jax.data.words import normalise

_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")


@functools.lru_cache(maxsize=1 << 17)
def plain_text(text: str) -> str:
    """Normalised, or, where nothing would be left of it ("?!"), as it stands."""
    return normalise(text) or " ".join(text.casefold().split())


@functools.lru_cache(maxsize=1 << 17)
def sorted_words(text: str) -> str:
    """Its words in order of the alphabet: two such texts, compared by letters, give rapidfuzz's token sort ratio."""
    return " ".join(sorted(plain_text(text).split()))


def choices_key(choices: Sequence[str]) -> tuple[str, ...]:
    """The choices, whatever their order."""
    return tuple(sorted(plain_text(choice) for choice in choices))


def alike(a: str, b: str) -> float:
    """0 to 100: how far two plain texts are the same; 0 where they name different numbers."""
    if a == b:
        return 100.0
    if sorted(_NUMBER.findall(a)) != sorted(_NUMBER.findall(b)):
        return 0.0
    return fuzz.ratio(a, b)


def choices_alike(a: Sequence[str], b: Sequence[str]) -> float:
    """0 to 100: the least alike of the choices, each beside the one most like it; 0 where they differ in number."""
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
