"""Sound files to waveforms: any format, rate, width and number of channels to 16 kHz mono float32.

A header is never believed: files are read block by block, each block averaged and resampled before the next, so that
memory is bounded by the waveform that is returned, whatever the file says of its length, rate and channels.

Channels are averaged. Where they cancel out, one of them having been recorded with the opposite sign, the mean would be
silence: there one channel is taken, the first that has at least half the energy of the loudest. Over the span that is
read, they cancel out when the mean has less than `CANCELLED` of the energy that the mean of unrelated channels has.
"""

import contextlib
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

from sari_jax.audio.spans import LONGEST, SLACK, UNKNOWN, Span, span, too_long
from sari_jax.audio.wav import Patches, open_header
from sari_jax.errors import InputError, one_line

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz; a file of 1 Hz would grow 16,000-fold
LOUDEST = (
    1e6  # full scale is 1, and 32,768 where integers were stored as floats; beyond, mels overflow
)
BLOCK = 1 << 18  # values held at once, of all channels
CANCELLED = 0.05  # two equally loud channels correlate by less than -0.95 then


def load_waveform(
    source: str | Path | bytes | io.BufferedIOBase,
    *,
    start: float | None = None,
    end: float | None = None,
    sample_rate: int = 16_000,
    longest: float = LONGEST,
    name: str | None = None,
) -> Float[np.ndarray, "S"]:
    """Reads a sound, or only its span from `start` to `end`, as one channel.

    A span that ends up to 0.1 s behind the sound ends with it, and one that is up to 0.1 s longer than `longest` is cut
    to that; see `spans`.

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
    called, levels = _called(source, name), _Levels()

    def read(channel: int | None) -> np.ndarray:
        with _opened(source, called) as file:
            part = span(called, start, end, file.samplerate, file.frames, longest)
            blocks = _mono(file, called, part, longest, levels, channel)
            waveform, count = _resampled(blocks, file, sample_rate)
            _check_length(file, called, part, count)
            return waveform

    waveform = read(None)
    return read(levels.loud) if levels.cancelled else waveform


def read_header(
    source: str | Path | bytes | io.BufferedIOBase, *, name: str | None = None
) -> tuple[int, int]:
    """The rate of a sound in Hz and its number of samples, UNKNOWN where its header leaves that open.

    Raises:
        InputError: the file is missing, not sound, without samples or of an absurd rate.
    """
    called = _called(source, name)
    with _opened(source, called) as file:
        if file.frames == 0:
            raise _empty(called)
        return file.samplerate, file.frames


def _called(source: str | Path | bytes | io.BufferedIOBase, name: str | None) -> str:
    return one_line(name or (str(source) if isinstance(source, str | Path) else "sound"))


@contextlib.contextmanager
def _opened(
    source: str | Path | bytes | io.BufferedIOBase, called: str
) -> Iterator[soundfile.SoundFile]:
    """The sound, open; whatever goes wrong while it is read is told as InputError.

    Raises:
        InputError: no such file, nothing in it, not sound, or of an absurd rate.
    """
    try:
        with _bytes(source, called) as file, _Sound(file) as sound:
            if not LOWEST_RATE <= sound.samplerate <= HIGHEST_RATE:
                raise InputError(
                    f"{called}: a rate of {sound.samplerate:,} Hz lies outside {LOWEST_RATE:,} to {HIGHEST_RATE:,} Hz;"
                    " write it anew at 16,000 Hz"
                )
            yield sound
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


@contextlib.contextmanager
def _bytes(source: str | Path | bytes | io.BufferedIOBase, called: str) -> Iterator[Any]:
    """What soundfile opens: the path itself where nothing speaks against it, as libsndfile reads that fastest.

    Raises:
        InputError: no such file, or nothing in it.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(source, str | Path):
            if os.path.isdir(source):  # unlike Path's own, these take any text for a name
                raise InputError(f"{called}: is a directory; name a sound file in it")
            if not os.path.isfile(source):
                raise InputError(f"{called}: no such sound file")
            file = stack.enter_context(open(source, "rb"))
        else:
            file = io.BytesIO(source) if isinstance(source, bytes) else source
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            raise InputError(f"{called}: the file is empty (0 bytes); fetch it again")
        patches = open_header(file)
        if patches or not isinstance(source, str | Path):
            yield _Stream(file, size, patches)
        else:
            yield source


class _Sound(soundfile.SoundFile):
    """A sound file whose header may not say where it ends.

    Then it cannot be sought in: soundfile reads it through, and finds the end so.
    """

    def seekable(self) -> bool:
        return self.frames != UNKNOWN and super().seekable()


class _Stream:
    """A binary file whose seek never fails: a damaged header sends libsndfile before the beginning too.

    Args:
        patches: what is read in place of what stands there.
    """

    def __init__(self, file: io.BufferedIOBase, size: int, patches: Patches):
        self._file, self._size, self._patches = file, size, patches
        self.tell = file.tell
        file.seek(0)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}[whence]
        return self._file.seek(min(max(base + offset, 0), self._size))

    def read(self, size: int = -1) -> bytes:
        start = self.tell()
        data = bytearray(self._file.read(size))
        for place, patch in self._patches:
            for i, byte in enumerate(patch, place - start):
                if 0 <= i < len(data):
                    data[i] = byte
        return bytes(data)


class _Levels:
    """How loud the channels of a sound are, and how loud their mean is: sums of squares over what was read."""

    def __init__(self) -> None:
        self._mean, self._channels = 0.0, np.zeros(1)

    def add(self, block: np.ndarray, mean: np.ndarray) -> None:
        self._mean += float(np.einsum("n,n->", mean, mean, dtype=np.float64))
        self._channels = self._channels + np.einsum("nc,nc->c", block, block, dtype=np.float64)

    @property
    def cancelled(self) -> bool:
        """Unrelated channels of energies e_1, ..., e_N have a mean of energy (e_1 + ... + e_N) / N^2."""
        unrelated = float(self._channels.sum()) / len(self._channels) ** 2
        return self._mean < CANCELLED * unrelated

    @property
    def loud(self) -> int:
        """The first channel that is about as loud as any: rounding in the file does not decide which."""
        return int((self._channels >= self._channels.max() / 2).argmax())


def _mono(
    file: soundfile.SoundFile,
    called: str,
    part: Span,
    longest: float,
    levels: _Levels,
    channel: int | None,
) -> Iterator[np.ndarray]:
    """The blocks of a span [n]: of one channel, or of the mean of all, whose levels are added up then.

    Raises:
        InputError: a sample is not finite or far too loud, or more come than may.
    """
    if part.first:
        file.seek(part.first)
    rate, size = file.samplerate, max(1, BLOCK // file.channels)
    count, most = 0, int(longest * rate)
    while count < part.last - part.first:
        block = file.read(
            min(size, part.last - part.first - count), dtype="float32", always_2d=True
        )
        if len(block) == 0:
            return
        count += len(block)
        if count > most + SLACK * rate:  # only where the header left the length open
            raise too_long(called, f"more than {most / rate:.1f} s", longest)
        block = block[: max(0, len(block) - (count - most))]  # as there alone, too
        if len(block) == 0:
            continue
        with np.errstate(all="ignore"):
            mono = block.mean(axis=1) if channel is None else block[:, channel]
            peak = np.abs(mono).max()
        _check_peak(called, float(peak))
        if channel is None and file.channels > 1:
            levels.add(block, mono)
        yield mono


def _check_peak(called: str, peak: float) -> None:
    if not math.isfinite(peak):
        raise InputError(
            f"{called}: holds samples that are not finite; leave it out or write it anew"
        )
    if peak > LOUDEST:
        raise InputError(
            f"{called}: holds a sample of {peak:.1e}, beyond {LOUDEST:.0e} (full scale is 1); leave it out or"
            " scale it"
        )


def _check_length(file: soundfile.SoundFile, called: str, part: Span, count: int) -> None:
    """The length of an mp3 may be an estimate; elsewhere a promise that a cut file does not keep.

    Of wav and ogg libsndfile promises only what is there.
    """
    if count < part.last - part.first and part.last != UNKNOWN and file.format != "MP3":
        rate = file.samplerate
        said = "an unknown length" if file.frames == UNKNOWN else f"{file.frames / rate:.3f} s"
        raise InputError(
            f"{called}: corrupt or cut short: ends after {(part.first + count) / rate:.3f} of {said}; fetch it again"
        )
    if count == 0:
        raise _empty(called)


def _empty(called: str) -> InputError:
    return InputError(f"{called}: holds no samples; leave it out")


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
