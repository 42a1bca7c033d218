"""The length of each question's audio, read from file headers alone, and batches of questions of similar length."""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tqdm import tqdm

from sari_jax.audio.clips import duration, measure
from sari_jax.audio.spans import SAMPLE_RATE
from sari_jax.data.processor import clip_size
from sari_jax.data.records import Clip, Record
from sari_jax.errors import InputError


def audio_lengths(records: Sequence[Record], buckets: tuple[float, ...], limit: int) -> np.ndarray:
    """Returns for each record the size of the bucket that holds its longest clip, in samples [N].

    A batch of this record alone would have this size.

    Args:
        records: N records.
        buckets: sizes in seconds.
        limit: the longest clip of the audio tower, in seconds.

    Raises:
        InputError: a clip cannot be read, or fits no bucket.
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
    """Divides records into batches of `rows`, so that clips that are padded to one length have similar lengths.

    Batches go from many and long clips to few and short ones. So a batch that does not fit the device fails at once,
    and the batch that is not full is a cheap one. If each question has one clip, no other batches of as many rows hold
    less audio after padding. A clip whose header cannot be read counts as length 0.

    Returns:
        The indices of the records in each batch.
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
    """Measures each clip once."""
    clips = list(dict.fromkeys(clip for record in records for clip in record.audio))
    # Threads, since the work is waiting for disks.
    with ThreadPoolExecutor() as readers:
        measured = readers.map(measure, clips)
        bar = tqdm(
            measured, "lengths", len(clips), leave=False, file=sys.stderr, disable=None, delay=2
        )
        return dict(zip(clips, bar, strict=True))
