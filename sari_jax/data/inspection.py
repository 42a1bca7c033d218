"""Inspection of records before a run starts, from their texts and the headers of their audio files."""

import collections
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from sari_jax.audio.clips import measure
from sari_jax.audio.spans import SAMPLE_RATE, Fit
from sari_jax.data.ledger import Dropped
from sari_jax.data.processor import Processor, Shapes
from sari_jax.data.records import Record
from sari_jax.data.styles import Style
from sari_jax.errors import InputError, one_line

# Records that a table lists for each reason.
SHOWN = 5


class Inspected(NamedTuple):
    """The result of an inspection.

    Attributes:
        bad: the records that cannot be used, with the reason.
        fits: the text of a `Fit` -> the number of such clips: clips that end before the requested end, or that are cut
            to the model's limit.
    """

    bad: list[Dropped]
    fits: dict[str, int]

    def notes(self, name: str) -> list[str]:
        """Returns a line for each kind of clip that is not used exactly as asked for."""
        return [f"{name}: {count} clips: {fit}" for fit, count in sorted(self.fits.items())]


class Inspector(NamedTuple):
    """Checks a record as a run will use it, with silence of the same length in place of its audio.

    Attributes:
        processor: the model directory's.
        style: the run's answer style.
        shapes: the run's sizes.
        answers: whether the record's chain is needed, as for SFT.
    """

    processor: Processor
    style: Style
    shapes: Shapes
    answers: bool

    def __call__(self, record: Record) -> tuple[Dropped | None, list[Fit]]:
        """Returns why the record cannot be used, or None if it can; and how each clip fits."""
        reason = "audio"
        fits = []
        waveforms = []
        try:
            for clip in record.audio:
                seconds, fit = measure(
                    clip.path, clip.start, clip.end, longest=self.processor.seconds
                )
                # It has as many samples as the header says, and takes no memory.
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
    """Inspects records in parallel, with a progress bar if it takes long."""
    bad: list[Dropped] = []
    fits: collections.Counter[str] = collections.Counter()
    # Threads, since the work is waiting for disks.
    with ThreadPoolExecutor() as readers:
        results = readers.map(inspector, records)
        quiet = dict(leave=False, file=sys.stderr, disable=None, delay=2)
        for dropped, clip_fits in tqdm(results, "check records", len(records), **quiet):
            if dropped:
                bad.append(dropped)
            else:
                fits.update(str(fit) for fit in clip_fits if fit is not Fit.EXACT)
    return Inspected(bad=bad, fits=dict(fits))


def table(name: str, bad: Sequence[Dropped], total: int) -> str:
    """Returns a table of the records that cannot be used, counted by reason, with the first of each."""
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
