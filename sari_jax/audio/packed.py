"""Clips packed in ArrayRecord shards: a few large files, from which a single clip can be read.

A clip in a shard is named `clips-00000.arrayrecord#17`. Its content is a complete flac file.
"""

import functools
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from jaxtyping import Float

from sari_jax.errors import InputError

SUFFIX = ".arrayrecord"
# The number of shards that a process keeps open.
OPEN = 64
# One clip in a group, so that a clip can be read alone. Compression would not make flac smaller.
WRITING = "group_size:1,uncompressed"
# No readahead, which would read the neighbouring clips too.
READING = "readahead_buffer_size:0,max_parallelism:0"


def shard_of(path: str) -> tuple[str, int] | None:
    """`shard.arrayrecord#17` -> the shard's file and 17; None for any other path."""
    file, mark, index = path.rpartition("#")
    if mark and file.endswith(SUFFIX) and index.isdecimal():
        return file, int(index)
    return None


def packed_clip(file: str, index: int) -> io.BytesIO:
    """Reads a clip of a shard, as the bytes of its flac file.

    Raises:
        InputError: the shard is missing or damaged, or has no clip with this index.
    """
    shard = _shard(file)
    if index >= shard.num_records():
        raise InputError(
            f"{file}: has no clip {index}, only {shard.num_records()} clips; pack the corpus again"
        )
    try:
        (content,) = shard.read([index])
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"{file}: clip {index} cannot be read ({error}); pack the corpus again"
        ) from error
    return io.BytesIO(content)


@functools.lru_cache(maxsize=OPEN)
def _shard(file: str) -> ArrayRecordReader:
    if not Path(file).is_file():
        raise InputError(f"{file}: no such shard; pack the corpus again")
    try:
        return ArrayRecordReader(file, READING)
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"{file}: not an ArrayRecord shard, or cut short; pack the corpus again"
        ) from error


class Shards:
    """Writes clips one after the other, `size` to a shard."""

    def __init__(self, folder: Path, size: int):
        self._folder = folder
        self._size = size
        self._writer: ArrayRecordWriter | None = None
        self.count = 0

    def add(self, waveform: Float[np.ndarray, "S"], sample_rate: int) -> str:
        """Appends a clip as 16-bit flac and returns its name."""
        shard, index = divmod(self.count, self._size)
        name = f"clips-{shard:05d}{SUFFIX}"
        if index == 0:
            self.close()
            self._writer = ArrayRecordWriter(str(self._folder / name), WRITING)
        content = io.BytesIO()
        soundfile.write(content, waveform, sample_rate, format="FLAC", subtype="PCM_16")
        self._writer.write(content.getvalue())
        self.count += 1
        return f"{name}#{index}"

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@contextmanager
def writing(folder: Path, size: int) -> Iterator[Shards]:
    """Opens shards in a folder for writing, and closes them at the end."""
    shards = Shards(folder, size)
    try:
        yield shards
    finally:
        shards.close()
