"""The order in which questions are learnt, by the base model's pass rate."""

from collections.abc import Callable, Sequence

import numpy as np

from sari_jax.data.records import Record
from sari_jax.errors import InputError


def easy_to_hard(records: Sequence[Record], numbers: list[int]) -> list[int]:
    rates = _pass_rates(records)
    return sorted(numbers, key=lambda number: -rates[number])


def hard_to_easy(records: Sequence[Record], numbers: list[int]) -> list[int]:
    rates = _pass_rates(records)
    return sorted(numbers, key=lambda number: rates[number])


def random(records: Sequence[Record], numbers: list[int]) -> list[int]:
    return numbers


# Each takes the records and their shuffled numbers, and puts the numbers in order; a stable sort leaves ties shuffled.
ORDERS: dict[str, Callable[[Sequence[Record], list[int]], list[int]]] = {
    "easy_to_hard": easy_to_hard,
    "hard_to_easy": hard_to_easy,
    "random": random,
}


def order(records: Sequence[Record], name: str, seed: int) -> list[int]:
    """Every record's number once, in the order of that name; equal pass rates fall as the seed says.

    Raises:
        InputError: unknown order, or an order by pass rate over records without one.
    """
    if name not in ORDERS:
        raise InputError(f"order {name!r} is unknown; choose {', '.join(ORDERS)}")
    numbers = np.random.default_rng(seed).permutation(len(records)).tolist()
    return ORDERS[name](records, numbers)


def drop_hopeless(
    records: Sequence[Record], *, drop_solved: bool = False
) -> tuple[list[Record], dict[str, int]]:
    """Leaves out what the base model never answers right, since no group of attempts would show a difference.

    Args:
        drop_solved: leave out also what it always answers right.

    Returns:
        The records kept, those without a pass rate among them, and the counts `kept`, `hopeless` and `solved`
        of those left out.
    """
    rates = [record.pass_rate for record in records]
    kept = [r for r in records if r.pass_rate != 0 and not (drop_solved and r.pass_rate == 1)]
    hopeless = rates.count(0)
    return kept, {
        "kept": len(kept),
        "hopeless": hopeless,
        "solved": len(records) - len(kept) - hopeless,
    }


def _pass_rates(records: Sequence[Record]) -> list[float]:
    missing = [record.id for record in records if record.pass_rate is None]
    if missing:
        raise InputError(
            f"curriculum: {len(missing)} of {len(records)} records have no pass_rate ({missing[0]} is the first);"
            " add it with `sari score`, or use the order 'random'"
        )
    return [record.pass_rate for record in records]
