"""What can be known of records before a run starts: from their texts and from the headers of their files."""

import collections
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from sari_jax.audio.clips import measure
from sari_jax.audio.spans import Fit
from sari_jax.data.ledger import Dropped
from sari_jax.data.processor import SAMPLE_RATE, Processor, Shapes
from sari_jax.data.records import Record
from sari_jax.data.styles import Style
from sari_jax.errors import InputError, one_line

SHOWN = 5  # records for each reason in a table


class Inspected(NamedTuple):
    """What was found of some records.

    Attributes:
        bad: those that cannot be used, and why.
        fits: how many clips end before the end that was asked for, or are cut to the longest that may be heard.
    """

    bad: list[Dropped]
    fits: dict[str, int]

    def notes(self, name: str) -> list[str]:
        """A line for each kind of clip that is not heard as it was asked for."""
        return [f"{name}: {count} clips: {fit}" for fit, count in sorted(self.fits.items())]


class Inspector(NamedTuple):
    """Asks what a run will ask of each record, with silence of the same length in the place of its sound.

    Attributes:
        answers: whether the record's chain is needed.
    """

    processor: Processor
    style: Style
    shapes: Shapes
    answers: bool

    def __call__(self, record: Record) -> tuple[Dropped | None, list[Fit]]:
        """Why the record cannot be used, None if nothing speaks against it; and how each clip fits."""
        reason, fits = "sound", []
        try:
            waveforms = []
            for clip in record.audio:
                seconds, fit = measure(
                    clip.path, clip.start, clip.end, longest=self.processor.seconds
                )
                # As many samples as the header promises, which take no memory.
                waveforms.append(np.broadcast_to(np.float32(0), round(seconds * SAMPLE_RATE)))
                fits.append(fit)
            if self.answers:
                reason = "chain"
                self.style.render(record)
            reason = "prompt"
            example = self.processor.question(
                record, self.style, answer=self.answers, waveforms=waveforms
            )
            self.processor.sizes([example], self.shapes)
        except InputError as error:
            return Dropped(record.id, reason, one_line(str(error))), fits
        return None, fits


def inspect(inspector: Inspector, records: Sequence[Record]) -> Inspected:
    """What texts and headers tell of the records."""
    bad, fits = [], collections.Counter()
    with ThreadPoolExecutor() as readers:  # they wait for disks
        found = readers.map(inspector, records)
        quiet = dict(leave=False, file=sys.stderr, disable=None, delay=2)
        for dropped, heard in tqdm(found, "check records", len(records), **quiet):
            if dropped:
                bad.append(dropped)
            else:
                fits.update(str(fit) for fit in heard if fit is not Fit.EXACT)
    return Inspected(bad, dict(fits))


def table(name: str, bad: Sequence[Dropped], total: int) -> str:
    """How many records cannot be used, which ones, and why."""
    lines = [f"{name}: {len(bad)} of {total} records cannot be used"]
    for reason, count in collections.Counter(one.reason for one in bad).most_common():
        of_it = [one for one in bad if one.reason == reason]
        lines.append(f"  {count:>6}  {reason}")
        lines += [f"          {one.where}: {one.detail}" for one in of_it[:SHOWN]]
        if count > SHOWN:
            lines.append(f"          and {count - SHOWN} more: " + _ids(of_it[SHOWN:]))
    return "\n".join(lines)


def _ids(bad: Sequence[Dropped], most: int = 20) -> str:
    ids = [one.where for one in bad]
    return ", ".join(ids[:most]) + (", ..." if len(ids) > most else "")
