"""SARI's two rewards: one for the right answer, one for the right form."""

from sari_jax.data.answers import is_right
from sari_jax.data.records import Record
from sari_jax.data.styles import Style


def format_reward(completion: str, record: Record, style: Style) -> float:
    """Returns 1 if the whole completion is in the style, else 0.

    >>> from sari_jax.data.records import Clip
    >>> from sari_jax.data.styles import STYLES
    >>> record = Record(
    ...     id="r1", audio=(Clip("dog.wav"),), question="Which animal?", choices=("cat", "dog"),
    ...     answer_index=1, task="sound", source="mine", licence="CC0-1.0",
    ... )
    >>> format_reward("<answer>dog</answer>", record, STYLES["direct"])
    1.0
    >>> format_reward("It is a <answer>dog</answer>", record, STYLES["direct"])
    0.0

    Args:
        completion: the text.
        record: the question; unused here.
        style: the answer style, whose grammar decides; see `Style.matches`.

    Returns:
        1.0 or 0.0.

    References:
        SARI (arXiv 2504.15900).
    """
    return float(style.matches(completion))


def accuracy_reward(completion: str, record: Record, style: Style) -> float:
    """Returns 1 if the extracted answer names the right choice, else 0.

    >>> from sari_jax.data.records import Clip
    >>> from sari_jax.data.styles import STYLES
    >>> record = Record(
    ...     id="r1", audio=(Clip("dog.wav"),), question="Which animal?", choices=("cat", "dog"),
    ...     answer_index=1, task="sound", source="mine", licence="CC0-1.0",
    ... )
    >>> accuracy_reward("It is a <answer>Dog.</answer>", record, STYLES["direct"])
    1.0
    >>> accuracy_reward("<answer>cat or dog</answer>", record, STYLES["direct"])
    0.0

    Args:
        completion: the text.
        record: the question with its choices and right answer.
        style: the answer style, which finds the answer in the text; see `Style.answer`. The rest of the text need not
            be in the style.

    Returns:
        1.0 or 0.0, by the rule of `data.answers.choice_index`.

    References:
        SARI (arXiv 2504.15900).
    """
    answer = style.answer(completion)
    return float(answer is not None and is_right(answer, record.choices, record.answer_index))
