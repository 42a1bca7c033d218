"""The order in which questions are learnt, by the base model's pass rate."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from sari_jax.data.records import Record
from sari_jax.errors import InputError

ADAPTIVE = "adaptive"


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """How questions follow each other.

    Attributes:
        order: one of ORDERS; or adaptive, by what the model in training answers.
        stages: of the order `staged`.
        window: batches within which questions may change places, so that clips of like length share a batch.
        mix: "SOURCE=WEIGHT", a pattern of the records' source and its share; none: as they come. It holds over the
            stream; within a window, sources whose clips are of one length come together.
        refresh: batches between two looks of `adaptive` at the pass rates.
    """

    order: str = "random"
    stages: int = 3
    window: int = 1
    mix: tuple[str, ...] = ()
    refresh: int = 32


@runtime_checkable
class Ranked(Protocol):
    """What an order needs to know of a question: a record has it, and so has a line of a run's roster."""

    id: str
    source: str
    pass_rate: float | None


Indices = list[int]


def easy_to_hard(records: Sequence[Ranked], indices: Indices, stages: int) -> Indices:
    rates = _pass_rates(records, indices)
    return sorted(indices, key=lambda index: -rates[index])


def hard_to_easy(records: Sequence[Ranked], indices: Indices, stages: int) -> Indices:
    rates = _pass_rates(records, indices)
    return sorted(indices, key=lambda index: rates[index])


def staged(records: Sequence[Ranked], indices: Indices, stages: int) -> Indices:
    """Equal parts from easy to hard, each in the shuffled order that the indices come in."""
    rank = {index: place for place, index in enumerate(indices)}
    parts = np.array_split(easy_to_hard(records, indices, stages), stages)
    return [index for part in parts for index in sorted(part.tolist(), key=rank.__getitem__)]


def as_written(records: Sequence[Ranked], indices: Indices, stages: int) -> Indices:
    return sorted(indices)


def random(records: Sequence[Ranked], indices: Indices, stages: int) -> Indices:
    return indices


# Each takes all records and some of their indices, shuffled, and puts those in order; a stable sort leaves ties
# shuffled.
ORDERS: dict[str, Callable[[Sequence[Ranked], Indices, int], Indices]] = {
    "easy_to_hard": easy_to_hard,
    "hard_to_easy": hard_to_easy,
    "staged": staged,
    "as_written": as_written,
    "random": random,
}


def order(records: Sequence[Ranked], name: str, seed: int, *, stages: int = 3) -> Indices:
    """Every record's index once, in the order of that name; equal pass rates fall as the seed says.

    Raises:
        InputError: unknown order, or an order by pass rate over records without one.
    """
    return order_some(records, range(len(records)), name, seed, stages=stages)


def order_some(
    records: Sequence[Ranked], indices: Sequence[int], name: str, seed: int, *, stages: int = 3
) -> Indices:
    """`indices`, places in `records`, in the order of that name, ties and random orders by `seed`.

    Raises:
        InputError: unknown order, or an order by pass rate over records without one.
    """
    if name not in ORDERS:
        raise InputError(f"order {name!r} is unknown; choose {', '.join(ORDERS)}")
    shuffled = np.random.default_rng(seed).permutation(np.asarray(indices, int)).tolist()
    return ORDERS[name](records, shuffled, stages)


def drop(
    records: Sequence[Record], *, unsolved: bool = True, solved: bool = False
) -> tuple[list[Record], dict[str, int]]:
    """Leaves out what the base model answers always alike, since no group of attempts would show a difference.

    Args:
        unsolved: leave out what it never answers right.
        solved: leave out what it always answers right.

    Returns:
        The records kept, those without a pass rate among them, and the counts `kept`, `unsolved` and `solved`
        of those left out.
    """
    rates = [record.pass_rate for record in records]
    out = {"unsolved": rates.count(0) * unsolved, "solved": rates.count(1) * solved}
    kept = [
        r for r in records if not (unsolved and r.pass_rate == 0 or solved and r.pass_rate == 1)
    ]
    return kept, {"kept": len(kept), **out}


def _pass_rates(records: Sequence[Ranked], indices: Sequence[int]) -> list[float]:
    missing = [records[index].id for index in sorted(indices) if records[index].pass_rate is None]
    if missing:
        raise InputError(
            f"curriculum: {len(missing)} of {len(indices)} records have no pass_rate ({missing[0]} is the first);"
            " add it with `sari score`, or use the order 'random'"
        )
    return [record.pass_rate for record in records]
