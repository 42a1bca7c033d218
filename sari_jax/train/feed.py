"""Batches for the loop. Records that cannot be read are skipped, named, and counted over all hosts."""

import json
from typing import Any

import jax
import numpy as np

from sari_jax.data.pipeline import Batches, NothingReadable, Reader
from sari_jax.data.processor import Batch
from sari_jax.errors import InputError, one_line
from sari_jax.parallel import hosts
from sari_jax.train.config import Run
from sari_jax.train.questions import MEND, Questions, too_many


class TooManyBad(InputError):
    """More records cannot be read than may be skipped; every host raises it at the same batch."""


class Feed:
    """The batches of a run, the same on any number of hosts.

    Attributes:
        skipped: why each record, by its id, was skipped since the run started.
    """

    def __init__(
        self,
        run: Run,
        questions: Questions,
        reader: Reader,
        batches: Batches,
    ):
        self._run, self._questions = run, questions
        self._reader, self._batches = reader, batches
        self._known = {one.where for one in questions.bad}
        self.skipped: dict[str, str] = {}
        self._fresh: dict[str, str] = {}

    @property
    def position(self) -> int:
        return self._batches.position

    def take(self) -> Batch:
        """The next batch. All hosts call this at the same time.

        Raises:
            TooManyBad: more records cannot be read than may be skipped.
        """
        batch, failure = None, ""
        try:
            batch = next(self._batches)
        except NothingReadable as error:
            failure = str(error)
        found = {
            self._questions.roster[index].id: one_line(why)
            for index, why in self._batches.bad.items()
            if self._questions.records[index] is not None  # a removed record counts as mended
        }
        mine = {id: why for id, why in found.items() if id not in self.skipped}
        for other, failed in gather_from_hosts(mine, failure):
            failure = failure or failed
            self._skip(other)
        bad = self._known | self.skipped.keys()
        last, why = next(reversed(self.skipped.items()), ("", failure))
        which = f"the last is {last}: {why}"
        refused = too_many(self._run, len(bad), self._questions.total, which)
        if refused or failure:
            raise TooManyBad(refused or f"{failure}; {MEND}")
        return batch

    def fresh(self) -> dict[str, str]:
        """The records that were skipped since the last call, with reasons."""
        found, self._fresh = self._fresh, {}
        return found

    def learn(self, numbers: list[int], pass_rates: list[float]) -> None:
        self._batches.learn(numbers, pass_rates)

    def state(self, position: int) -> dict[str, Any]:
        return {**self._batches.state(position), "skipped": dict(self.skipped)}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint. Records that were mended since no longer count as skipped."""
        state = dict(state)
        before = state.pop("skipped", {})
        self._batches.set_state(state)
        numbers = {entry.id: number for number, entry in enumerate(self._questions.roster)}
        mine = list(before)[jax.process_index() :: jax.process_count()]
        mended = {id: "" for id in mine if self._readable(numbers[id])}
        gone = {id for other, _ in gather_from_hosts(mended, "") for id in other}
        self.skipped = {id: why for id, why in before.items() if id not in gone}

    def close(self) -> None:
        self._batches.close()

    def _readable(self, number: int) -> bool:
        if self._questions.records[number] is None:
            return True  # removed, and so mended
        try:
            self._reader.example(number)
        except InputError:
            return False
        return True

    def _skip(self, found: dict[str, str]) -> None:
        for id, why in found.items():
            if id not in self.skipped and id not in self._known:
                hosts.log(f"skipped record {id}: {why}")
                self._fresh[id] = why
            self.skipped.setdefault(id, why)


def gather_from_hosts(found: dict[str, str], failure: str) -> list[tuple[dict[str, str], str]]:
    """(what was found, what failed) on each host, in order. Hosts exchange texts only where one has any."""
    if not hosts.is_multihost():
        return [(found, failure)]
    if not hosts.all_gather(np.array([len(found) + bool(failure)], np.int32)).any():
        return []
    return [tuple(json.loads(text)) for text in hosts.all_gather_text(json.dumps([found, failure]))]
