"""The input pipeline, made with Grain: batches in the curriculum's order, prefetched, resumable to the example."""

import collections
import dataclasses
import functools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from sari_jax.data.curriculum import Indices
from sari_jax.data.processor import Batch, Example, Processor, Shapes
from sari_jax.data.records import Record
from sari_jax.data.schedule import Plan, Schedule
from sari_jax.data.styles import Style
from sari_jax.errors import InputError
from sari_jax.models.audio_lm import Prompts

GONE = "gone from the data file"
# Records that may replace one that cannot be read, besides those of its batch.
SUBSTITUTES = 64


@dataclasses.dataclass(frozen=True)
class Reader:
    """A function from the indices of a global batch to the arrays of this process's rows, with audio read from disk.

    A record that cannot be read is skipped. The next readable question of its batch takes its place, and is then
    sampled twice with different seeds. The batch and the files alone decide which question that is.

    Attributes:
        records: the records of the dataset; None for a record that is gone from the data file.
        processor: the processor of the model directory.
        style: the run's answer style.
        shapes: the run's batch shapes.
        answers: whether batches have supervised answers.
        rows: this process's rows of the global batch; None for all.
    """

    records: Sequence[Record | None]
    processor: Processor
    style: Style
    shapes: Shapes
    answers: bool = False
    rows: tuple[int, ...] | None = None

    def __call__(self, indices: Indices) -> dict[str, Any]:
        """Returns the fields of a `Batch` except its records, and `bad`: [index, why] of each skipped record.

        If a row has no substitute either, `bad` is returned alone.
        """
        counts = repeats(indices)
        bad: dict[int, str] = {}
        examples: list[Example] = []
        asked: list[int] = []
        for row in self.mine(list(range(len(indices)))):
            for distance, index in enumerate(self._candidates(indices, row)):
                if index in bad:
                    continue
                try:
                    examples.append(self.example(index))
                except InputError as error:
                    bad[index] = str(error)
                    continue
                # A substitute's repeat count, an offset of its sampling seed, differs from the question's own
                # and from those of the other rows that the question replaces.
                asked.append(counts[row] if distance == 0 else 255 - distance % 128)
                break
            else:
                return {"bad": list(bad.items())}
        batch = self.processor.collate(examples, self.shapes)
        batch = dataclasses.replace(batch, repeats=np.array(asked, np.int32))
        # Worker processes pass plain arrays in shared memory; records would be copied.
        arrays = {name: value for name, value in vars(batch).items() if name != "records"}
        return arrays | {"prompts": vars(batch.prompts), "bad": list(bad.items())}

    def example(self, index: int) -> Example:
        """Reads one record, and checks that it fits the shapes.

        Raises:
            InputError: the record is gone, cannot be read, or fits no shape.
        """
        record = self.records[index]
        if record is None:
            raise InputError(GONE)
        example = self.processor.question(record, self.style, index=index, answer=self.answers)
        self.processor.sizes([example], self.shapes)
        return example

    def _candidates(self, indices: Indices, row: int) -> Iterator[int]:
        """Yields a row's own question, then the others of its batch, then those that follow in the data file."""
        yield from indices[row:]
        yield from indices[:row]
        for after in range(1, min(SUBSTITUTES, len(self.records))):
            yield (indices[row] + after) % len(self.records)

    def slim(self) -> "Reader":
        """Returns a smaller reader for another process, without chains that it does not need."""
        if self.answers:
            return self
        bare = [
            r and dataclasses.replace(r, chain_structured=None, chain_free=None)
            for r in self.records
        ]
        return dataclasses.replace(self, records=bare)

    def mine(self, indices: Indices) -> Indices:
        """Returns this process's part of a global batch."""
        return indices if self.rows is None else [indices[row] for row in self.rows]


def repeats(indices: Indices) -> list[int]:
    """Counts for each index how often it occurs before its place.

    >>> repeats([7, 4, 7, 7])
    [0, 0, 1, 2]
    """
    seen: collections.Counter[int] = collections.Counter()
    found = []
    for index in indices:
        found.append(seen[index])
        seen[index] += 1
    return found


class NothingReadable(InputError):
    """Raised for a batch of which no record can be read."""


class Batches(Iterator[Batch]):
    """An endless iterator of `Batch`.

    A global batch holds the same examples in the same order for any number of hosts and of worker processes. The state
    is the number of batches taken and the state of the schedule. It is the same in every process, and a run with
    another number of processes can resume from it.

    Args:
        schedule: the indices of each batch.
        reader: the reader of a batch.
        workers: processes that read; 0 for two threads of this one.
        read_ahead: batches that each worker prefetches.

    Attributes:
        position: the index of the next batch.
        bad: index -> the reason why this process could not read the record.
    """

    def __init__(
        self, schedule: Schedule, reader: Reader, *, workers: int = 0, read_ahead: int = 4
    ):
        self._schedule = schedule
        self._reader = reader
        self._workers = workers
        self._ahead = read_ahead
        self.position = 0
        self.bad: dict[int, str] = {}
        self._plan: Plan | None = None
        self._arrays: grain.DatasetIterator | None = None

    def __next__(self) -> Batch:
        """Returns the next batch.

        Raises:
            NothingReadable: a record cannot be read, and neither can any substitute; the position stays.
        """
        if self._plan is None or not self._plan.start <= self.position < self._plan.end:
            self._open()
        arrays = dict(next(self._arrays))
        self.bad |= dict(arrays.pop("bad"))
        if not arrays:
            self.close()
            self._plan = None
            raise NothingReadable(
                f"no question of batch {self.position + 1} can be read, nor any that could replace one"
            )
        records = tuple(self._reader.records[index] for index in arrays["indices"].tolist())
        self.position += 1
        return Batch(records=records, **arrays | {"prompts": Prompts(**arrays["prompts"])})

    def learn(self, indices: Indices, rates: Sequence[float]) -> None:
        """Passes the pass rates of a batch's questions to the schedule, batch by batch."""
        self._schedule.learn(indices, rates)

    def state(self, position: int | None = None) -> dict[str, Any]:
        """Returns the state to resume from, here or at a `position` that was reached since the last `learn`."""
        position = self.position if position is None else position
        return {"next_index": position, **self._schedule.state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Resumes from a state."""
        self.close()
        self.position = state["next_index"]
        self._plan = None
        self._schedule.set_state(state)

    def close(self) -> None:
        """Ends the worker processes."""
        if self._arrays is not None:
            self._arrays.close()
            self._arrays = None

    def _open(self) -> None:
        """Starts reading at the current position."""
        self.close()
        self._plan = self._schedule.plan(self.position)
        # Workers get only the batches that are left, so any number of them can resume from any batch.
        rest = slice(self.position - self._plan.start, None)
        reader = self._reader.slim() if self._workers else self._reader
        arrays = grain.MapDataset.source(self._plan.batches).slice(rest).map(reader)
        if self._workers:
            # Grain reads its own flags there; this program has none.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
            options = grain.MultiprocessingOptions(self._workers, self._ahead)
            self._arrays = iter(
                arrays.to_iter_dataset(ahead).mp_prefetch(
                    options, functools.partial(_end_with, os.getpid())
                )
            )
        else:
            ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=self._ahead)
            self._arrays = iter(arrays.to_iter_dataset(ahead))


def _end_with(parent: int, *_: int) -> None:
    """Ends a worker process when its parent has ended, since a parent that is killed cannot end it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
