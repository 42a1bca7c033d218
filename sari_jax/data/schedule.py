"""Schedules: the questions of any batch, without the batches before it, and the same however often a run is resumed."""

import fnmatch
from collections.abc import Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from sari_jax.data.curriculum import ADAPTIVE, Curriculum, Indices, Ranked, order_some
from sari_jax.errors import InputError

# How far one rollout moves a question's pass rate. Ours.
SPEED = 0.5
# The weight that solved and unsolved questions keep. Ours.
FLOOR = 0.02


class Plan(NamedTuple):
    """The batches from `start` up to `end`: `batches[i]` holds the records' indices of batch `start + i`."""

    batches: Sequence[Indices]
    start: int
    end: int


class Fixed:
    """A schedule that does not depend on the rollouts.

    `random` shuffles each epoch differently; the other orders repeat the same sequence. With a mix, each source has
    its own sequence, and its share of the stream is in proportion to its weight.

    Args:
        records: the records of the data file, or the entries of a run's roster.
        curriculum: the order and its settings.
        batch_size: the number of questions of a global batch.
        seed: the seed of shuffles, and of the order of equal pass rates.
        lengths: [N] each record's audio length, in any unit, equal within a bucket; None not to batch by length.
    """

    def __init__(
        self,
        records: Sequence[Ranked],
        curriculum: Curriculum,
        *,
        batch_size: int,
        seed: int,
        lengths: np.ndarray | None = None,
    ):
        self._size = batch_size
        self._window = curriculum.window
        self._lengths = lengths
        self._last: tuple[int, list[Indices]] = (-1, [])
        groups = mixed(records, curriculum.mix)
        streams = [
            _stream(records, indices, curriculum, seed + place)
            for place, (indices, _) in enumerate(groups)
        ]
        stream = streams[0]
        if len(streams) > 1:
            stream = grain.MapDataset.mix(streams, [weight for _, weight in groups])
        self._windows = stream.batch(batch_size * self._window, drop_remainder=True, batch_fn=list)

    def __len__(self) -> int:
        return len(self._windows) * self._window

    def __getitem__(self, batch: int) -> Indices:
        window, place = divmod(batch, self._window)
        last, batches = self._last
        if last != window:
            batches = alike(self._windows[window], self._size, self._lengths)
            self._last = window, batches
        return batches[place]

    def plan(self, batch: int) -> Plan:
        """Returns all batches."""
        return Plan(batches=self, start=0, end=len(self))

    def learn(self, indices: Indices, rates: Sequence[float]) -> None:
        """Does nothing, since this schedule does not depend on pass rates."""

    def state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass


class Adaptive:
    """A schedule that samples questions which the current policy answers right only sometimes.

        weight = p * (1 - p) + FLOOR

    p (1 - p) is the variance of the reward of a question with pass rate p. The rate starts from the base model's, or
    from one half, and follows the rollouts of the run. Batches are drawn `refresh` at a time. The last batch before a
    draw does not count yet, since its rollouts may not be finished.

    Args:
        records: the records of the data file, or the entries of a run's roster.
        curriculum: the order and its settings.
        batch_size: the number of questions of a global batch.
        seed: the seed of the draws.
        lengths: [N] each record's audio length, in any unit, equal within a bucket; None not to batch by length.
    """

    def __init__(
        self,
        records: Sequence[Ranked],
        curriculum: Curriculum,
        *,
        batch_size: int,
        seed: int,
        lengths: np.ndarray | None = None,
    ):
        self._size = batch_size
        self._seed = seed
        self._lengths = lengths
        self._refresh = curriculum.refresh
        self._window = curriculum.window
        self._groups = mixed(records, curriculum.mix)
        rates = [record.pass_rate for record in records]
        self._first = np.array([0.5 if rate is None else rate for rate in rates])
        self._rates = self._first.copy()
        self._block = -1
        self._learnt = 0
        self._pending: list[tuple[int, Indices, list[float]]] = []

    def plan(self, batch: int) -> Plan:
        """Returns the block of `refresh` batches that holds this batch, drawn by the pass rates known at its start."""
        block = batch // self._refresh
        start = block * self._refresh
        if block != self._block:
            due = [update for update in self._pending if update[0] < start - 1]
            for _, indices, rates in due:
                for index, rate in zip(indices, rates, strict=True):
                    self._rates[index] += SPEED * (rate - self._rates[index])
            self._pending = self._pending[len(due) :]
            self._block = block
        return Plan(batches=self._draw(), start=start, end=start + self._refresh)

    def _draw(self) -> list[Indices]:
        """Draws the batches of the current block."""
        rng = np.random.default_rng([self._seed, self._block])
        weights = self._rates * (1 - self._rates) + FLOOR
        shares = np.array([weight for _, weight in self._groups])
        counts = rng.multinomial(self._size * self._refresh, shares / shares.sum())
        drawn = []
        for (indices, _), count in zip(self._groups, counts, strict=True):
            chances = weights[indices] / weights[indices].sum()
            drawn.append(rng.choice(indices, count, replace=count > len(indices), p=chances))
        shuffled = rng.permutation(np.concatenate(drawn)).tolist()
        span = self._size * self._window
        windows = [shuffled[at : at + span] for at in range(0, len(shuffled), span)]
        return [batch for window in windows for batch in alike(window, self._size, self._lengths)]

    def learn(self, indices: Indices, rates: Sequence[float]) -> None:
        """Takes the pass rates of the next batch's rollouts; called once for each batch, in order."""
        self._pending.append((self._learnt, list(indices), [float(rate) for rate in rates]))
        self._learnt += 1

    def state(self) -> dict[str, Any]:
        moved = np.flatnonzero(self._rates != self._first).tolist()
        return {
            "block": self._block,
            "learnt": self._learnt,
            "rates": [[index, float(self._rates[index])] for index in moved],
            "pending": [list(update) for update in self._pending],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self._block = state["block"]
        self._learnt = state["learnt"]
        self._rates = self._first.copy()
        for index, rate in state["rates"]:
            self._rates[index] = rate
        self._pending = [tuple(update) for update in state["pending"]]


Schedule = Fixed | Adaptive


def make_schedule(
    records: Sequence[Ranked],
    curriculum: Curriculum,
    *,
    batch_size: int,
    seed: int,
    lengths: np.ndarray | None = None,
) -> Schedule:
    """Makes the schedule of a curriculum.

    Args:
        records: the records of the data file, or the entries of a run's roster.
        curriculum: the order and its settings.
        batch_size: the number of questions of a global batch.
        seed: the seed of shuffles, draws and the order of equal pass rates.
        lengths: [N] each record's audio length, in any unit, equal within a bucket; None not to batch by length.

    Raises:
        InputError: an order by pass rate over records without one; a mix that does not match the records.
    """
    kind = Adaptive if curriculum.order == ADAPTIVE else Fixed
    return kind(records, curriculum, batch_size=batch_size, seed=seed, lengths=lengths)


def alike(indices: Indices, size: int, lengths: np.ndarray | None) -> list[Indices]:
    """Divides a window's questions into batches of clips of similar length.

    >>> similar = np.array([10, 90, 10, 90])
    >>> alike([0, 1, 2, 3], 2, similar)
    [[0, 2], [1, 3]]

    Returns:
        The batches, ordered by the mean place that their questions had in the window.
    """
    places = np.arange(len(indices))
    if lengths is not None:
        places = np.argsort(lengths[indices], kind="stable")
    batches = [places[at : at + size] for at in range(0, len(indices), size)]
    batches.sort(key=lambda batch: batch.mean())
    return [[indices[place] for place in batch] for batch in batches]


def mixed(records: Sequence[Ranked], mix: Sequence[str]) -> list[tuple[Indices, float]]:
    """Groups the records' indices by the first pattern that their source matches.

    Returns:
        The indices and the weight of each pattern; one group of all records for an empty mix.

    Raises:
        InputError: a share does not read SOURCE=WEIGHT, a pattern matches no record, a record matches no pattern.
    """
    if not mix:
        return [(list(range(len(records))), 1.0)]
    groups: dict[str, tuple[Indices, float]] = {}
    for share in mix:
        pattern, _, weight = share.rpartition("=")
        try:
            groups[pattern] = ([], float(weight))
        except ValueError:
            pattern = ""
        if not pattern or not 0 < groups[pattern][1] < float("inf"):
            raise InputError(
                f"config: data.mix: {share!r} does not read SOURCE=WEIGHT; write for instance 'avqa*=2'"
            )
    for index, record in enumerate(records):
        pattern = next((p for p in groups if fnmatch.fnmatchcase(record.source, p)), None)
        if pattern is None:
            raise InputError(
                f"config: data.mix: record {record.id} is of source {record.source!r}, which no pattern matches;"
                " add a pattern for it, or '*=1' for all other sources"
            )
        groups[pattern][0].append(index)
    for pattern, (indices, _) in groups.items():
        if not indices:
            raise InputError(
                f"config: data.mix: no record is of source {pattern!r}; correct or remove it"
            )
    return list(groups.values())


def _stream(
    records: Sequence[Ranked], indices: Indices, curriculum: Curriculum, seed: int
) -> grain.MapDataset:
    """Returns an endless stream of these indices, epoch after epoch."""
    if curriculum.order == "random":
        return grain.MapDataset.source(indices).seed(seed).shuffle().repeat()
    ordered = order_some(records, indices, curriculum.order, seed, stages=curriculum.stages)
    return grain.MapDataset.source(ordered).repeat()
