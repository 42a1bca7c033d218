"""Sound files to waveforms: any format, rate, width and number of channels to 16 kHz mono float32.

A header is never believed: files are read block by block, each block averaged and resampled before the next, so that
memory is bounded by the waveform that is returned, whatever the file says of its length, rate and channels.
"""

import io
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from sari_jax.errors import InputError, one_line

LONGEST = 600.0  # seconds; the audio towers take 30 or 300
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz; a file of 1 Hz would grow 16,000-fold
LOUDEST = (
    1e6  # full scale is 1, and 32,768 where integers were stored as floats; beyond, mels overflow
)
BLOCK = 1 << 18  # values held at once, of all channels
UNKNOWN = 2**63 - 1  # frames, where a stream's header leaves its length open


class TooLong(InputError):
    """A sound of more seconds than were allowed."""


def load_waveform(
    source: str | Path | bytes | io.BufferedIOBase,
    *,
    start: float | None = None,
    end: float | None = None,
    sample_rate: int = 16_000,
    longest: float = LONGEST,
    name: str | None = None,
) -> Float[np.ndarray, "S"]:
    """Reads a sound, or only its span from `start` to `end`; channels are averaged.

    Args:
        source: whatever libsndfile reads (wav, flac, ogg, mp3 and more): a path, the bytes of a file, or one open for
            reading in binary, which is read from its beginning and left open.
        start: seconds, default the beginning.
        end: seconds, default the end.
        sample_rate: Hz of the result.
        longest: seconds that may be asked for.
        name: what messages call it, default the path.

    Raises:
        TooLong: longer than `longest`.
        InputError: the file is missing, empty, not sound, cut short, without samples, not finite, too loud or of an
            absurd rate; or the span lies outside it.
    """
    called = one_line(name or (str(source) if isinstance(source, str | Path) else "sound"))
    try:
        with _Sound(_opened(source, called)) as file:
            rate = file.samplerate
            if not LOWEST_RATE <= rate <= HIGHEST_RATE:
                raise InputError(
                    f"{called}: a rate of {rate:,} Hz lies outside {LOWEST_RATE:,} to {HIGHEST_RATE:,} Hz; write it"
                    f" anew at {sample_rate:,} Hz"
                )
            first, last = _span(called, start, end, rate, file.frames)
            if last != UNKNOWN and last - first > longest * rate:
                raise _too_long(called, f"{(last - first) / rate:.1f} s", longest)
            waveform, count = _resampled(
                _mono(file, called, first, last, longest), file, sample_rate
            )
            # The length of an mp3 may be an estimate; elsewhere a promise that a cut file does not keep. Of wav and ogg
            # libsndfile promises only what is there.
            if count < last - first and last != UNKNOWN and file.format != "MP3":
                said = (
                    "an unknown length" if file.frames == UNKNOWN else f"{file.frames / rate:.3f} s"
                )
                raise InputError(
                    f"{called}: corrupt or cut short: ends after {(first + count) / rate:.3f} of {said}; fetch it again"
                )
    except InputError:
        raise
    # TypeError: raw samples, by the file's name. The rest: what a damaged header makes soundfile stumble over.
    except (
        soundfile.SoundFileRuntimeError,
        TypeError,
        ValueError,
        AssertionError,
        OSError,
    ) as error:
        told = one_line(str(error))
        raise InputError(
            f"{called}: corrupt, or of a kind not read here ({told}); convert it to wav or flac"
        ) from error
    if count == 0:
        raise InputError(f"{called}: holds no samples; leave it out")
    return waveform


def _opened(source: str | Path | bytes | io.BufferedIOBase, called: str) -> Any:
    """What soundfile opens.

    Raises:
        InputError: no such file, or nothing in it.
    """
    if isinstance(source, str | Path):
        if os.path.isdir(source):  # unlike Path's own, these take any text for a name
            raise InputError(f"{called}: is a directory; name a sound file in it")
        if not os.path.isfile(source):
            raise InputError(f"{called}: no such sound file")
        size = os.path.getsize(source)
    else:
        source = io.BytesIO(source) if isinstance(source, bytes) else source
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
        if size:
            source = _Stream(source)
    if size == 0:
        raise InputError(f"{called}: the file is empty (0 bytes); fetch it again")
    return source


class _Sound(soundfile.SoundFile):
    """Where a file ends is found by reading it when its header does not say: soundfile would seek there, in vain."""

    def seekable(self) -> bool:
        return self.frames != UNKNOWN and super().seekable()


class _Stream:
    """A binary file whose seek never fails: a damaged header sends libsndfile before the beginning too."""

    def __init__(self, file: io.BufferedIOBase):
        self.read, self.tell, self._seek = file.read, file.tell, file.seek
        self._size = file.seek(0, os.SEEK_END)
        self._seek(0)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}[whence]
        return self._seek(min(max(base + offset, 0), self._size))


def _mono(
    file: soundfile.SoundFile, called: str, first: int, last: int, longest: float
) -> Iterator[np.ndarray]:
    """The blocks of a span [n], the channels of each averaged.

    Raises:
        InputError: a sample is not finite or far too loud, or more come than may.
    """
    if first:
        file.seek(first)
    count, most, size = 0, longest * file.samplerate, max(1, BLOCK // file.channels)
    while count < last - first:
        block = file.read(min(size, last - first - count), dtype="float32", always_2d=True)
        if len(block) == 0:
            return
        count += len(block)
        if count > most:  # only where the header left the length open
            raise _too_long(called, f"more than {most / file.samplerate:.1f} s", longest)
        with np.errstate(all="ignore"):
            mono = block.mean(axis=1)
            peak = np.abs(mono).max()
        if not np.isfinite(peak):
            raise InputError(
                f"{called}: holds samples that are not finite; leave it out or write it anew"
            )
        if peak > LOUDEST:
            raise InputError(
                f"{called}: holds a sample of {peak:.1e}, beyond {LOUDEST:.0e} (full scale is 1); leave it out or"
                " scale it"
            )
        yield mono


def _resampled(
    blocks: Iterator[np.ndarray], file: soundfile.SoundFile, sample_rate: int
) -> tuple[np.ndarray, int]:
    """The waveform [S] at that rate, and of how many samples at the file's own it was made."""
    stream, parts, count = None, [], 0
    if (
        file.samplerate != sample_rate
    ):  # in blocks it gives, bit for bit, what it gives in one piece
        stream = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        count += len(block)
        parts.append(stream.resample_chunk(block) if stream else block)
    if not parts:
        return np.zeros(0, np.float32), 0
    if stream:
        parts.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    waveform = np.concatenate(parts)
    length = math.ceil(count * sample_rate / file.samplerate)
    padded = np.pad(waveform, (0, max(0, length - len(waveform))))
    return np.ascontiguousarray(padded[:length], np.float32), count


def _span(
    called: str, start: float | None, end: float | None, rate: int, frames: int
) -> tuple[int, int]:
    """The first sample of the span and the one after its last, UNKNOWN where that is left open."""
    if start is None and end is None:
        return 0, frames
    begin, until = start or 0.0, frames / rate if end is None else end
    if math.isfinite(begin) and math.isfinite(until):
        first = round(begin * rate)
        last = frames if end is None else round(until * rate)
        if 0 <= first < last <= frames:
            return first, last
    raise InputError(
        f"{called}: the span from {begin:g} to {until:g} s does not lie within its {frames / rate:g} s"
    )


def _too_long(called: str, length: str, longest: float) -> TooLong:
    return TooLong(
        f"{called}: {length} exceeds {longest:g} s; split it, or name a span by start and end"
    )
