"""Clips in ArrayRecord shards: few large files, from which one clip is read without its neighbours.

A clip in a shard is named `clips-00000.arrayrecord#17` and is a whole flac file of its own.
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
OPEN = 64  # shards that a process keeps open
# One clip each, as any may be asked for alone; flac gets no smaller by further compression.
WRITING = "group_size:1,uncompressed"
# A reader that fetches ahead would read the neighbours too.
READING = "readahead_buffer_size:0,max_parallelism:0"


def shard_of(path: str) -> tuple[str, int] | None:
    """`shard.arrayrecord#17` -> the shard's file and 17; None for any other path."""
    file, mark, number = path.rpartition("#")
    if mark and file.endswith(SUFFIX) and number.isdecimal():
        return file, int(number)
    return None


def packed_clip(file: str, number: int) -> io.BytesIO:
    """A clip of a shard as the file that it is.

    Raises:
        InputError: no such shard, not a shard, or not so many clips in it.
    """
    shard = _shard(file)
    if number >= shard.num_records():
        raise InputError(
            f"{file}: clip {number} is asked for, and it holds {shard.num_records()}; pack the corpus again"
        )
    try:
        (content,) = shard.read([number])
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{file}: clip {number} cannot be read ({error})") from error
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
    """Clips written one after the other, `size` to a shard."""

    def __init__(self, folder: Path, size: int):
        self._folder, self._size = folder, size
        self._writer: ArrayRecordWriter | None = None
        self.count = 0

    def add(self, waveform: Float[np.ndarray, "S"], sample_rate: int) -> str:
        """Appends a clip as 16-bit flac and returns its name."""
        shard, number = divmod(self.count, self._size)
        name = f"clips-{shard:05d}{SUFFIX}"
        if number == 0:
            self.close()
            self._writer = ArrayRecordWriter(str(self._folder / name), WRITING)
        content = io.BytesIO()
        soundfile.write(content, waveform, sample_rate, format="FLAC", subtype="PCM_16")
        self._writer.write(content.getvalue())
        self.count += 1
        return f"{name}#{number}"

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@contextmanager
def writing(folder: Path, size: int) -> Iterator[Shards]:
    """Shards in a folder, closed at the end."""
    shards = Shards(folder, size)
    try:
        yield shards
    finally:
        shards.close()
