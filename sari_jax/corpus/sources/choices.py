"""Choices made by rule: the same for the same seed and id, the right one anywhere among them."""

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sari_jax.data.answers import choice_index
from sari_jax.data.ledger import Drop

NO_ANSWER = "answer not among the choices"
NO_WRONG = "no wrong choices to be had"
_LETTER = re.compile(r"\(?([a-z])\)?[.:]?")


def dice(seed: int, name: str) -> random.Random:
    """What is thrown for one question, whatever is asked before it."""
    return random.Random(f"{seed} {name}")


def mixed(
    right: str, wrong: Iterable[str] | Mapping[str, int], seed: int, name: str, count: int = 4
) -> dict[str, Any]:
    """A record's `choices` and `answer_index`: the right one among up to `count` - 1 of the wrong, drawn by id.

    Args:
        wrong: with weights, if some are to be drawn more often. Right answers that are so often right elsewhere must
            be wrong as often, or the text alone gives them away.

    Raises:
        Drop: there is nothing wrong to choose.
    """
    throw = dice(seed, name)
    weights = dict(sorted(Counter(wrong).items()))
    weights.pop(right, None)
    choices = [right]
    while weights and len(choices) < count:
        choices += throw.choices(list(weights), list(weights.values()))
        del weights[choices[-1]]
    if len(choices) < 2:
        raise Drop(NO_WRONG, f"nothing to put beside {right!r}")
    throw.shuffle(choices)
    return {"choices": choices, "answer_index": choices.index(right)}


def named(answer: str, choices: Sequence[str], *, lettered: bool = False) -> dict[str, Any]:
    """A record's `choices` and `answer_index` where the answer is given as text or letter.

    Args:
        lettered: the choices were shown with letters, so that one which is itself a letter leaves "A" open.

    Raises:
        Drop: it names none of them, or more than one.
    """
    index, letter = choice_index(answer, choices), _LETTER.fullmatch(answer.strip().lower())
    place = ord(letter[1]) - ord("a") if letter else len(choices)
    if index is None and place < len(choices):
        index = place
    if index is None or lettered and place < len(choices) and place != index:
        raise Drop(NO_ANSWER, f"answer {answer[:80]!r} is not one of {list(choices)}")
    return {"choices": list(choices), "answer_index": index}
