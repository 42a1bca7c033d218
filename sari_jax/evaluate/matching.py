"""MMAU's official rule for whether a predicted text is the right choice. MMAR uses the same rule."""

import re
from collections.abc import Sequence


def words(text: str) -> set[str]:
    return set(re.findall(r"\b\w+\b", text.lower()))


def matches(answer: str, prediction: str, choices: Sequence[str]) -> bool:
    """Returns whether the prediction holds all words of the answer and none that only wrong choices have.

    Give the extracted answer alone: words around it, as in "The correct answer is X.", may belong to a wrong choice.

    References:
        string_match in the MMAU repository's evaluation.py (Sakshi et al. 2024).
    """
    predicted, right = words(prediction), words(answer)
    wrong = set().union(*(words(choice) - right for choice in choices))
    return bool(predicted) and right <= predicted and predicted.isdisjoint(wrong)
