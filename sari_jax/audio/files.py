"""Audio files to waveforms: any format, rate, width and number of channels to 16 kHz mono float32.

Headers are not trusted. Files are read block by block, and each block is averaged and resampled before the next. So
memory is bounded by the returned waveform, whatever length, rate and channels the header claims.

Channels are averaged. If one was recorded with the opposite sign, channels cancel out and the mean would be silence.
Then one channel is used instead: the first with at least half the energy of the loudest. Channels cancel out if, over
the span that is read, their mean has less than `CANCELLED` of the energy that the mean of unrelated channels has.
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

from sari_jax.audio.spans import LONGEST, SAMPLE_RATE, SLACK, UNKNOWN, Span, span, too_long
from sari_jax.audio.wav import Patches, patch_open_header
from sari_jax.errors import InputError, one_line

# Hz. Resampling would make a file of 1 Hz 16,000 times as long.
LOWEST_RATE = 1_000
HIGHEST_RATE = 768_000
# Full scale is 1, or 32,768 if integers were stored as floats. Far above that, mel spectrograms overflow.
LOUDEST = 1e6
# Values of all channels that are held at once.
BLOCK = 1 << 18
# Two equally loud channels then correlate by less than -0.95.
CANCELLED = 0.05

Source = str | Path | bytes | io.BufferedIOBase


def load_waveform(
    source: Source,
    *,
    start: float | None = None,
    end: float | None = None,
    sample_rate: int = SAMPLE_RATE,
    longest: float = LONGEST,
    name: str | None = None,
) -> Float[np.ndarray, "S"]:
    """Reads an audio file, or its span from `start` to `end`, as one channel.

    A span that ends up to 0.1 s after the audio is read to the audio's end. A span that exceeds `longest` by up to
    0.1 s is cut to `longest`; see `spans`.

    Args:
        source: a file that libsndfile reads (wav, flac, ogg, mp3 and more): a path, the bytes of a file, or a file
            opened in binary mode, which is read from its beginning and left open.
        start: seconds, default the beginning.
        end: seconds, default the end.
        sample_rate: Hz of the result.
        longest: the limit in seconds.
        name: the audio's name in messages; default the path.

    Raises:
        TooLong: the audio or span is longer than `longest`.
        InputError: the file is missing, empty, not audio, cut short, without samples, not finite, too loud or of a rate
            out of range; or the span lies outside it.
    """
    name = _name(source, name)
    levels = _Levels()

    def read(channel: int | None) -> np.ndarray:
        with _open_audio(source, name) as file:
            part = span(name, start, end, file.samplerate, file.frames, longest)
            blocks = _mono_blocks(file, name, part, longest, levels, channel)
            waveform, count = _resample(blocks, file, sample_rate)
            _check_length(file, name, part, count)
            return waveform

    waveform = read(None)
    return read(levels.first_loud) if levels.cancelled else waveform


def read_header(source: Source, *, name: str | None = None) -> tuple[int, int]:
    """The rate of an audio file in Hz and its number of samples, UNKNOWN if its header does not give it.

    Raises:
        InputError: the file is missing, not audio, without samples or of a rate out of range.
    """
    name = _name(source, name)
    with _open_audio(source, name) as file:
        if file.frames == 0:
            raise _empty(name)
        return file.samplerate, file.frames


def _name(source: Source, name: str | None) -> str:
    return one_line(name or (str(source) if isinstance(source, str | Path) else "sound"))


@contextlib.contextmanager
def _open_audio(source: Source, name: str) -> Iterator[soundfile.SoundFile]:
    """Opens an audio file. Any failure to open or read it raises InputError.

    Raises:
        InputError: the file is missing, empty, damaged, not audio, or of a rate out of range.
    """
    try:
        with _open_bytes(source, name) as file, _AudioFile(file) as audio:
            if not LOWEST_RATE <= audio.samplerate <= HIGHEST_RATE:
                raise InputError(
                    f"{name}: a rate of {audio.samplerate:,} Hz lies outside {LOWEST_RATE:,} to {HIGHEST_RATE:,} Hz;"
                    " resample it to 16,000 Hz"
                )
            yield audio
    except InputError:
        raise
    # soundfile raises TypeError if the file's name means raw samples, and the others for a damaged header.
    except (
        soundfile.SoundFileRuntimeError,
        TypeError,
        ValueError,
        AssertionError,
        OSError,
    ) as error:
        reason = one_line(str(error))
        raise InputError(
            f"{name}: corrupt, or not in a supported format ({reason}); convert it to wav or flac"
        ) from error


@contextlib.contextmanager
def _open_bytes(source: Source, name: str) -> Iterator[Any]:
    """The file for soundfile to open: the path itself if possible, because libsndfile reads that fastest.

    Raises:
        InputError: the file is missing or empty.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(source, str | Path):
            # Unlike Path's methods, these functions accept any text as a name.
            if os.path.isdir(source):
                raise InputError(f"{name}: is a directory; name a sound file in it")
            if not os.path.isfile(source):
                raise InputError(f"{name}: no such sound file")
            file = stack.enter_context(open(source, "rb"))
        else:
            file = io.BytesIO(source) if isinstance(source, bytes) else source
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            raise InputError(f"{name}: the file is empty (0 bytes); fetch it again")
        patches = patch_open_header(file)
        if patches or not isinstance(source, str | Path):
            yield _Stream(file, size, patches)
        else:
            yield source


class _AudioFile(soundfile.SoundFile):
    """An audio file whose header may not give its length.

    In that case it claims not to be seekable, so that soundfile reads it up to its end.
    """

    def seekable(self) -> bool:
        return self.frames != UNKNOWN and super().seekable()


class _Stream:
    """A binary file whose seek never fails. A damaged header makes libsndfile seek before the beginning.

    Args:
        patches: bytes to read instead of the file's own.
    """

    def __init__(self, file: io.BufferedIOBase, size: int, patches: Patches):
        self._file = file
        self._size = size
        self._patches = patches
        self.tell = file.tell
        file.seek(0)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}[whence]
        return self._file.seek(min(max(base + offset, 0), self._size))

    def read(self, size: int = -1) -> bytes:
        start = self.tell()
        data = bytearray(self._file.read(size))
        for offset, patch in self._patches:
            for i, byte in enumerate(patch, offset - start):
                if 0 <= i < len(data):
                    data[i] = byte
        return bytes(data)


class _Levels:
    """Energies of the channels and of their mean: sums of squares over the samples that were read."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._channels = np.zeros(1)

    def add(self, block: np.ndarray, mean: np.ndarray) -> None:
        self._mean += float(np.einsum("n,n->", mean, mean, dtype=np.float64))
        self._channels = self._channels + np.einsum("nc,nc->c", block, block, dtype=np.float64)

    @property
    def cancelled(self) -> bool:
        """Whether the channels cancel out.

        The mean of N unrelated channels with energies e_1, ..., e_N has the energy (e_1 + ... + e_N) / N^2.
        """
        unrelated = float(self._channels.sum()) / len(self._channels) ** 2
        return self._mean < CANCELLED * unrelated

    @property
    def first_loud(self) -> int:
        """The first channel with at least half the energy of the loudest, so that rounding does not decide."""
        return int((self._channels >= self._channels.max() / 2).argmax())


def _mono_blocks(
    file: soundfile.SoundFile,
    name: str,
    part: Span,
    longest: float,
    levels: _Levels,
    channel: int | None,
) -> Iterator[np.ndarray]:
    """The blocks [n] of a span: of one channel, or of the mean of all, whose energies are then added to `levels`.

    Raises:
        InputError: a sample is not finite or too loud, or a stream of unknown length exceeds the limit.
    """
    if part.first:
        file.seek(part.first)
    rate = file.samplerate
    size = max(1, BLOCK // file.channels)
    limit = int(longest * rate)
    count = 0
    while count < part.last - part.first:
        block = file.read(
            min(size, part.last - part.first - count), dtype="float32", always_2d=True
        )
        if len(block) == 0:
            return
        count += len(block)
        # Only if the header does not give the length: otherwise `span` has limited the request.
        if count > limit + SLACK * rate:
            raise too_long(name, "the audio", longest)
        block = block[: max(0, len(block) - (count - limit))]
        if len(block) == 0:
            continue
        with np.errstate(all="ignore"):
            mono = block.mean(axis=1) if channel is None else block[:, channel]
            peak = np.abs(mono).max()
        _check_peak(name, float(peak))
        if channel is None and file.channels > 1:
            levels.add(block, mono)
        yield mono


def _check_peak(name: str, peak: float) -> None:
    if not math.isfinite(peak):
        raise InputError(
            f"{name}: holds samples that are not finite; leave it out, or write the file again"
        )
    if peak > LOUDEST:
        raise InputError(
            f"{name}: holds a sample of {peak:.1e}, beyond {LOUDEST:.0e} (full scale is 1); leave it out or"
            " scale it"
        )


def _check_length(file: soundfile.SoundFile, name: str, part: Span, count: int) -> None:
    """Checks that all samples of the span were read.

    For wav and ogg, libsndfile gives the length of what the file holds. An mp3's length may be an estimate. The length
    of other formats is wrong if the file was cut short.

    Raises:
        InputError: the file was cut short, or holds no samples.
    """
    if count < part.last - part.first and part.last != UNKNOWN and file.format != "MP3":
        rate = file.samplerate
        length = "an unknown length" if file.frames == UNKNOWN else f"{file.frames / rate:.3f} s"
        raise InputError(
            f"{name}: corrupt or cut short: ends after {(part.first + count) / rate:.3f} of {length}; fetch it again"
        )
    if count == 0:
        raise _empty(name)


def _empty(name: str) -> InputError:
    return InputError(f"{name}: holds no samples; leave it out")


def _resample(
    blocks: Iterator[np.ndarray], file: soundfile.SoundFile, sample_rate: int
) -> tuple[np.ndarray, int]:
    """The waveform [S] at `sample_rate`, and the number of samples at the file's rate that it was made of."""
    parts = []
    count = 0
    stream = None
    # A stream of blocks gives the same bits as resampling in one piece.
    if file.samplerate != sample_rate:
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
