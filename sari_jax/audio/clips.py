"""Clips by name: a clip is a file of its own, or one of many that are packed in a shard."""

import io

import numpy as np
from jaxtyping import Float

from sari_jax.audio.files import load_waveform, read_header
from sari_jax.audio.packed import packed_clip, shard_of
from sari_jax.audio.spans import LONGEST, SAMPLE_RATE, UNKNOWN, Fit, span


def load_clip(
    path: str,
    start: float | None = None,
    end: float | None = None,
    *,
    longest: float = LONGEST,
) -> Float[np.ndarray, "S"]:
    """Reads a clip, or a span of it in seconds, at 16 kHz.

    Args:
        longest: the limit in seconds.

    Raises:
        InputError: it cannot be read; see `load_waveform` and `packed_clip`.
    """
    return load_waveform(_open(path), start=start, end=end, longest=longest, name=path)


def duration(path: str, start: float | None = None, end: float | None = None) -> float:
    """Seconds of a clip, from its header. Unlike `measure`, this does not check `end`.

    Raises:
        InputError: the clip is missing or not audio.
    """
    if end is None:
        rate, samples = _header(path)
        end = samples / rate
    return end - (start or 0.0)


def measure(
    path: str,
    start: float | None = None,
    end: float | None = None,
    *,
    longest: float = LONGEST,
) -> tuple[float, Fit]:
    """Seconds that `load_clip` would return and how they differ from the request, from the clip's header.

    The samples are not read, so they may still be cut short or not finite.

    Raises:
        TooLong: it exceeds `longest` by more than `SLACK`.
        InputError: the clip is missing, empty or not audio, or the span does not lie within it.
    """
    rate, samples = _header(path)
    part = span(path, start, end, rate, samples, longest)
    return (part.last - part.first) / rate, part.fit


def _header(path: str) -> tuple[int, int]:
    """A clip's rate and number of samples. They are counted if the header does not give their number."""
    rate, samples = read_header(_open(path), name=path)
    if samples == UNKNOWN:
        return SAMPLE_RATE, len(load_clip(path))
    return rate, samples


def _open(path: str) -> str | io.BytesIO:
    packed = shard_of(path)
    return packed_clip(*packed) if packed else path
