"""Records -> batches through Grain: ordered by the curriculum, read ahead, resumable to the example."""

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
# Records that are tried in the place of one that cannot be read, beside those of its batch.
SUBSTITUTES = 64


@dataclasses.dataclass(frozen=True)
class Reader:
    """The indices of a global batch -> the arrays of this process's rows, sound read from disk.

    A record that cannot be read is skipped: the next readable question of its batch is asked in its place, and so a
    second time, with other samples. Which one that is depends on the batch and on the files alone.

    Attributes:
        records: None stands for one that is gone from the data file.
        rows: of the global batch; None is all.
    """

    records: Sequence[Record | None]
    processor: Processor
    style: Style
    shapes: Shapes
    answers: bool = False
    rows: tuple[int, ...] | None = None

    def __call__(self, indices: Indices) -> dict[str, Any]:
        """The fields of a `Batch` but its records, and `bad`: [index, why] of each record that was skipped.

        `bad` alone comes back where a row has no substitute either.
        """
        turns, bad = repeats(indices), {}
        examples, asked = [], []
        for row in self.mine(list(range(len(indices)))):
            for distance, index in enumerate(self._candidates(indices, row)):
                if index in bad:
                    continue
                try:
                    examples.append(self.example(index))
                except InputError as error:
                    bad[index] = str(error)
                    continue
                # Another turn than the question's own, and than that of other rows it stands in for.
                asked.append(turns[row] if distance == 0 else 255 - distance % 128)
                break
            else:
                return {"bad": list(bad.items())}
        batch = self.processor.collate(examples, self.shapes)
        batch = dataclasses.replace(batch, repeats=np.array(asked, np.int32))
        # Plain arrays, which another process hands over in shared memory, and not the records.
        arrays = {name: value for name, value in vars(batch).items() if name != "records"}
        return arrays | {"prompts": vars(batch.prompts), "bad": list(bad.items())}

    def example(self, index: int) -> Example:
        """One record, read and measured.

        Raises:
            InputError: it is gone, cannot be read, or fits no shape.
        """
        record = self.records[index]
        if record is None:
            raise InputError(GONE)
        example = self.processor.question(record, self.style, index=index, answer=self.answers)
        self.processor.sizes([example], self.shapes)
        return example

    def _candidates(self, indices: Indices, row: int) -> Iterator[int]:
        """A row's own question, the others of its batch, and those that follow in the data file."""
        yield from indices[row:]
        yield from indices[:row]
        for after in range(1, min(SUBSTITUTES, len(self.records))):
            yield (indices[row] + after) % len(self.records)

    def slim(self) -> "Reader":
        """For another process, which gets a copy: without the chains that it does not read."""
        if self.answers:
            return self
        bare = [
            r and dataclasses.replace(r, chain_structured=None, chain_free=None)
            for r in self.records
        ]
        return dataclasses.replace(self, records=bare)

    def mine(self, indices: Indices) -> Indices:
        return indices if self.rows is None else [indices[row] for row in self.rows]


def repeats(indices: Indices) -> list[int]:
    """How often each of them stands before its place: [7, 4, 7, 7] -> [0, 0, 1, 2]"""
    seen: collections.Counter[int] = collections.Counter()
    found = []
    for index in indices:
        found.append(seen[index])
        seen[index] += 1
    return found


class NothingReadable(InputError):
    """A batch of which no record can be read."""


class Batches(Iterator[Batch]):
    """An endless iterator of `Batch`.

    A global batch holds the same examples in the same order however many hosts take part and however many worker
    processes read. The state is the number of batches taken, and what the schedule has learnt: the same in every
    process, and good for another number of them.

    Args:
        workers: processes that read; 0: two threads of this one.
        read_ahead: batches that wait, for each worker.

    Attributes:
        position: the index of the next batch.
        bad: why each record, by its index, could not be read by this process so far.
    """

    def __init__(
        self, schedule: Schedule, reader: Reader, *, workers: int = 0, read_ahead: int = 4
    ):
        self._schedule, self._reader = schedule, reader
        self._workers, self._ahead = workers, read_ahead
        self.position = 0
        self.bad: dict[int, str] = {}
        self._plan: Plan | None = None
        self._arrays: grain.DatasetIterator | None = None

    def __next__(self) -> Batch:
        """
        Raises:
            NothingReadable: no record could be read in the place of one that cannot; the position stays.
        """
        if self._plan is None or not self._plan.start <= self.position < self._plan.end:
            self._open()
        arrays = dict(next(self._arrays))
        self.bad |= dict(arrays.pop("bad"))
        if not arrays:
            self.close()
            self._plan = None
            raise NothingReadable(
                f"no question of batch {self.position + 1} can be read, nor any near it"
            )
        records = tuple(self._reader.records[index] for index in arrays["indices"].tolist())
        self.position += 1
        return Batch(records=records, **arrays | {"prompts": Prompts(**arrays["prompts"])})

    def learn(self, indices: Indices, rates: Sequence[float]) -> None:
        """Tells the schedule, batch by batch, how often each question of it was answered right."""
        self._schedule.learn(indices, rates)

    def state(self, position: int | None = None) -> dict[str, Any]:
        """Goes on from here, or from a `position` there was after the last `learn`."""
        position = self.position if position is None else position
        return {"next_index": position, **self._schedule.state()}

    def set_state(self, state: dict[str, Any]) -> None:
        self.close()
        self.position, self._plan = state["next_index"], None
        self._schedule.set_state(state)

    def close(self) -> None:
        """Ends the worker processes."""
        if self._arrays is not None:
            self._arrays.close()
            self._arrays = None

    def _open(self) -> None:
        self.close()
        self._plan = self._schedule.plan(self.position)
        # What is left from here, so that any number of workers can go on from any batch.
        rest = slice(self.position - self._plan.start, None)
        reader = self._reader.slim() if self._workers else self._reader
        arrays = grain.MapDataset.source(self._plan.batches).slice(rest).map(reader)
        if self._workers:
            if not flags.FLAGS.is_parsed():  # Grain reads its own there, and this program has none
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
    """A worker process ends with the one that started it, which may be killed and then cannot say so."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
