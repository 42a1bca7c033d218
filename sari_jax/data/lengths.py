"""How long each question's sound is, read from the files' heads alone."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sari_jax.audio.clips import duration
from sari_jax.data.records import Record


def sound_lengths(records: Sequence[Record], buckets: Sequence[float]) -> np.ndarray:
    """[N] of each record, the number of the smallest bucket of seconds that holds its longest clip.

    Raises:
        InputError: a clip that cannot be read.
    """

    def longest(record: Record) -> float:
        return max(duration(clip.path, clip.start, clip.end) for clip in record.audio)

    with ThreadPoolExecutor() as readers:  # files wait for disks, not for this process
        return np.searchsorted(buckets, list(readers.map(longest, records)))
