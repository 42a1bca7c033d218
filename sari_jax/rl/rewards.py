"""Rule-based rewards of a completion."""

from collections.abc import Callable, Mapping

from sari_jax.data.answers import choice_index
from sari_jax.data.records import Record
from sari_jax.data.styles import Style
from sari_jax.errors import InputError


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


REWARDS: dict[str, Callable[[str, Record, Style], float]] = {
    "format": format_reward,
    "accuracy": accuracy_reward,
}


def score(
    completion: str, record: Record, style: Style, weights: Mapping[str, float]
) -> dict[str, float]:
    """Each reward by name, unweighted, and `total`, their sum by the weights.

    Args:
        weights: a reward without one is reported and counts nothing.

    Raises:
        InputError: a weight for an unknown reward.
    """
    unknown = [name for name in weights if name not in REWARDS]
    if unknown:
        raise InputError(f"reward {unknown[0]!r} is unknown; choose {', '.join(REWARDS)}")
    values = {name: reward(completion, record, style) for name, reward in REWARDS.items()}
    return values | {
        "total": float(sum(weights.get(name, 0) * value for name, value in values.items()))
    }
