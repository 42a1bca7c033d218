"""SARI's two rewards: whether the answer is right, and whether the whole has its form."""

from sari_jax.data.answers import is_right
from sari_jax.data.records import Record
from sari_jax.data.styles import Style


def format_reward(completion: str, record: Record, style: Style) -> float:
    """1 if the style's grammar matches the whole completion."""
    return float(style.matches(completion))


def accuracy_reward(completion: str, record: Record, style: Style) -> float:
    """1 if the extracted answer names the right choice, by the rule of `choice_index`."""
    answer = style.answer(completion)
    return float(answer is not None and is_right(answer, record.choices, record.answer_index))
