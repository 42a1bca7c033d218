"""SARI's two rewards: whether the answer is right, and whether the whole has its form."""

from sari_jax.data.answers import choice_index
from sari_jax.data.records import Record
from sari_jax.data.styles import Style


def format_reward(completion: str, record: Record, style: Style) -> float:
    """1 if the style's grammar matches the whole completion."""
    return float(style.matches(completion))


def accuracy_reward(completion: str, record: Record, style: Style) -> float:
    """1 if the extracted answer names the right choice after normalisation, whatever surrounds it.

    Choices are compared by their text: some benchmarks give the right one twice.
    """
    answer, choices = style.answer(completion), record.choices
    index = None if answer is None else choice_index(answer, choices)
    return float(index is not None and choices[index] == choices[record.answer_index])
