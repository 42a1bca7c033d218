"""How long each question's sound is, read from the files' heads alone."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sari_jax.audio.clips import duration
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
        seconds = duration(clip.path, clip.start, clip.end)
        try:
            return clip_size(round(seconds * SAMPLE_RATE), buckets, limit * SAMPLE_RATE)
        except InputError as error:
            raise InputError(f"{clip.path}: {error}") from error

    clips = list(dict.fromkeys(clip for record in records for clip in record.audio))
    with ThreadPoolExecutor() as readers:  # files wait for disks, not for this process
        sizes = dict(zip(clips, readers.map(size, clips), strict=True))
    return np.array([max(sizes[clip] for clip in record.audio) for record in records])
