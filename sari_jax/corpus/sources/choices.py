"""Choices made by rule: the same for the same seed and id, with the right one at any position."""

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sari_jax.data.answers import choice_index
from sari_jax.data.ledger import Drop

NO_ANSWER = "answer not among the choices"
NO_WRONG = "the file gives no wrong choice"
_LETTER = re.compile(r"\(?([a-z])\)?[.:]?")


def generator(seed: int, name: str) -> random.Random:
    """Returns one question's own random generator, so that its draws do not depend on other questions."""
    return random.Random(f"{seed} {name}")


def mixed(
    right: str, wrong: Iterable[str] | Mapping[str, int], seed: int, name: str, count: int = 4
) -> dict[str, Any]:
    """Makes a record's `choices` and `answer_index`: the right choice among up to `count` - 1 wrong ones.

    Args:
        wrong: the wrong choices, with weights if some should be drawn more often. A choice that is often right
            elsewhere must be wrong as often; otherwise the text alone gives it away.

    Raises:
        Drop: there is no wrong choice.
    """
    draws = generator(seed, name)
    weights = dict(sorted(Counter(wrong).items()))
    weights.pop(right, None)
    choices = [right]
    while weights and len(choices) < count:
        choices += draws.choices(list(weights), list(weights.values()))
        del weights[choices[-1]]
    if len(choices) < 2:
        raise Drop(NO_WRONG, f"nothing to put beside {right!r}")
    draws.shuffle(choices)
    return {"choices": choices, "answer_index": choices.index(right)}


def named(answer: str, choices: Sequence[str], *, lettered: bool = False) -> dict[str, Any]:
    """Makes a record's `choices` and `answer_index` from an answer that is a text or a letter.

    Args:
        lettered: whether the choices were shown with letters. Then "A" is ambiguous if a choice is itself a letter.

    Raises:
        Drop: the answer names none of the choices, or more than one.
    """
    index = choice_index(answer, choices)
    letter = _LETTER.fullmatch(answer.strip().lower())
    place = ord(letter[1]) - ord("a") if letter else len(choices)
    if index is None and place < len(choices):
        index = place
    if index is None or lettered and place < len(choices) and place != index:
        raise Drop(NO_ANSWER, f"answer {answer[:80]!r} is not one of {list(choices)}")
    return {"choices": list(choices), "answer_index": index}
