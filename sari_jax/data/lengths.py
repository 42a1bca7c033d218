"""How long each question's sound is, read from the files' heads alone, and which questions make a batch by that."""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tqdm import tqdm

from sari_jax.audio.clips import duration, measure
from sari_jax.data.processor import SAMPLE_RATE, clip_size
from sari_jax.data.records import Clip, Record
from sari_jax.errors import InputError


def sound_lengths(records: Sequence[Record], buckets: tuple[float, ...], limit: int) -> np.ndarray:
    """[N] samples of the bucket that holds each record's longest clip, as a batch of it alone would have.

    Args:
        buckets: seconds.
        limit: of the tower, in seconds.

    Raises:
        InputError: a clip that cannot be read, or fits no bucket.
    """

    def size(clip: Clip) -> int:
        seconds, _ = measure(clip.path, clip.start, clip.end, longest=limit)
        try:
            return clip_size(round(seconds * SAMPLE_RATE), buckets, limit * SAMPLE_RATE)
        except InputError as error:
            raise InputError(f"{clip.path}: {error}") from error

    sizes = _measured(records, size)
    return np.array([max(sizes[clip] for clip in record.audio) for record in records])


def by_length(records: Sequence[Record], rows: int) -> list[tuple[int, ...]]:
    """Places of records in batches of `rows`, so that clips that are padded to one length are of like lengths.

    From many and long clips to few and short ones, so that what does not fit the device shows at once and the batch
    that is not full is a cheap one. Where each question has one clip, no other batches of as many rows hold less sound
    when padded. A clip whose head cannot be read counts as one without length.
    """

    def seconds(clip: Clip) -> float:
        try:
            return duration(clip.path, clip.start, clip.end)
        except InputError:
            return 0.0

    lengths = _measured(records, seconds)
    size = [(len(record.audio), max(map(lengths.get, record.audio))) for record in records]
    order = sorted(range(len(records)), key=size.__getitem__, reverse=True)
    return [tuple(order[start : start + rows]) for start in range(0, len(order), rows)]


def _measured(records: Sequence[Record], measure: Callable[[Clip], Any]) -> dict[Clip, Any]:
    """Each clip's measure, taken once."""
    clips = list(dict.fromkeys(clip for record in records for clip in record.audio))
    with ThreadPoolExecutor() as readers:  # files wait for disks, not for this process
        measured = readers.map(measure, clips)
        bar = tqdm(
            measured, "lengths", len(clips), leave=False, file=sys.stderr, disable=None, delay=2
        )
        return dict(zip(clips, bar, strict=True))
