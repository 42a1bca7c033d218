"""Curricula: the order in which questions are learnt, by the base model's pass rate."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from sari_jax.data.records import Record
from sari_jax.errors import InputError

ADAPTIVE = "adaptive"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Settings of the order of questions.

    Attributes:
        order: one of ORDERS; or `adaptive`, which follows the pass rates of the model in training.
        stages: number of parts of the order `staged`.
        window: the number of batches within which questions may change places, so that clips of similar
            length share a batch.
        mix: "SOURCE=WEIGHT", a pattern of the records' source and its share; empty for no mix. The shares hold over the
            whole stream. Within a window, sources whose clips have the same length come together.
        refresh: the number of batches that `adaptive` draws before it looks at the pass rates again.
    """

    order: str = "random"
    stages: int = 3
    window: int = 1
    mix: tuple[str, ...] = ()
    refresh: int = 32


@runtime_checkable
class Ranked(Protocol):
    """A question as an order sees it: a record, or an entry of a run's roster."""

    id: str
    source: str
    pass_rate: float | None


Indices = list[int]


def easy_to_hard(records: Sequence[Ranked], indices: Indices, stages: int) -> Indices:
    """Sorts by falling pass rate."""
    rates = _pass_rates(records, indices)
    return sorted(indices, key=lambda index: -rates[index])


def hard_to_easy(records: Sequence[Ranked], indices: Indices, stages: int) -> Indices:
    """Sorts by rising pass rate."""
    rates = _pass_rates(records, indices)
    return sorted(indices, key=lambda index: rates[index])


def staged(records: Sequence[Ranked], indices: Indices, stages: int) -> Indices:
    """Divides into equal parts from easy to hard; within a part, indices keep the shuffled order they come in."""
    rank = {index: place for place, index in enumerate(indices)}
    parts = np.array_split(easy_to_hard(records, indices, stages), stages)
    return [index for part in parts for index in sorted(part.tolist(), key=rank.__getitem__)]


def as_written(records: Sequence[Ranked], indices: Indices, stages: int) -> Indices:
    """Restores the order of the data file."""
    return sorted(indices)


def random(records: Sequence[Ranked], indices: Indices, stages: int) -> Indices:
    """Keeps the shuffled order that the indices come in."""
    return indices


# Each takes all records and some of their indices, shuffled, and puts the indices in order. Sorts are stable, so ties
# stay shuffled.
ORDERS: dict[str, Callable[[Sequence[Ranked], Indices, int], Indices]] = {
    "easy_to_hard": easy_to_hard,
    "hard_to_easy": hard_to_easy,
    "staged": staged,
    "as_written": as_written,
    "random": random,
}


def order(records: Sequence[Ranked], name: str, seed: int, *, stages: int = 3) -> Indices:
    """Returns every record's index once, in the order of that name.

    Args:
        records: the records to order.
        name: one of ORDERS.
        seed: the seed of random orders, and of the order of equal pass rates.
        stages: number of parts of the order `staged`.

    Raises:
        InputError: unknown order, or an order by pass rate over records without one.
    """
    return order_some(records, range(len(records)), name, seed, stages=stages)


def order_some(
    records: Sequence[Ranked], indices: Sequence[int], name: str, seed: int, *, stages: int = 3
) -> Indices:
    """Returns these indices of `records` in the order of that name; otherwise as `order`.

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
    """Drops questions that the base model answers right always or never, so that their groups would have no spread.

    Args:
        unsolved: whether to drop the questions that it never answers right.
        solved: whether to drop the questions that it always answers right.

    Returns:
        The records that are kept, including those without a pass rate, and the counts of `kept` records and of dropped
        ones, `unsolved` and `solved`.
    """
    rates = [record.pass_rate for record in records]
    dropped = {"unsolved": rates.count(0) * unsolved, "solved": rates.count(1) * solved}
    kept = [
        r for r in records if not (unsolved and r.pass_rate == 0 or solved and r.pass_rate == 1)
    ]
    return kept, {"kept": len(kept), **dropped}


def _pass_rates(records: Sequence[Ranked], indices: Sequence[int]) -> list[float]:
    """Returns all records' pass rates, after checking that those at `indices` have one."""
    missing = [records[index].id for index in sorted(indices) if records[index].pass_rate is None]
    if missing:
        raise InputError(
            f"curriculum: {len(missing)} of {len(indices)} records have no pass_rate (the first is {missing[0]});"
            " add it with `sari score`, or use the order 'random'"
        )
    return [record.pass_rate for record in records]
