"""A clip by its name, whether it lies loose in a file or packed in a shard."""

import io

import numpy as np
from jaxtyping import Float

from sari_jax.audio.files import load_waveform, read_header
from sari_jax.audio.packed import packed_clip, shard_of
from sari_jax.audio.spans import LONGEST, UNKNOWN, Fit, span


def load_clip(
    path: str,
    start: float | None = None,
    end: float | None = None,
    *,
    longest: float = LONGEST,
) -> Float[np.ndarray, "S"]:
    """A clip at 16 kHz, or its span of seconds; `longest` of them may be asked for.

    Raises:
        InputError: it cannot be read; see `load_waveform` and `packed_clip`.
    """
    return load_waveform(_source(path), start=start, end=end, longest=longest, name=path)


def duration(path: str, start: float | None = None, end: float | None = None) -> float:
    """Seconds of a clip, by its head alone; an `end` is believed, where `measure` checks it.

    Raises:
        InputError: it is not there, or no sound.
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
    """Seconds that `load_clip` would give, and how that compares with what was asked for, by the clip's head alone.

    Only what its samples hold is not known then: whether they are finite, and all there.

    Raises:
        TooLong: it is longer than `longest`, and by more than is cut.
        InputError: it is not there, no sound or an empty one, or the span does not lie within it.
    """
    rate, samples = _header(path)
    part = span(path, start, end, rate, samples, longest)
    return (part.last - part.first) / rate, part.fit


def _header(path: str) -> tuple[int, int]:
    """A clip's rate and its number of samples, which are counted where the header leaves them open."""
    rate, samples = read_header(_source(path), name=path)
    if samples == UNKNOWN:
        return 16_000, len(load_clip(path))
    return rate, samples


def _source(path: str) -> str | io.BytesIO:
    packed = shard_of(path)
    return packed_clip(*packed) if packed else path
