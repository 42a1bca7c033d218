"""Spans of audio: which samples are read, given the requested span, the file's length and the limit."""

import dataclasses
import enum
import math

from sari_jax.errors import InputError

# Hz of every waveform that the package computes with.
SAMPLE_RATE = 16_000
# Seconds; the audio towers take 30 or 300.
LONGEST = 600.0
# Seconds by which a span may end after its audio, or exceed the limit. Times are rounded, encoders pad to whole frames,
# and the "30 s" of corpora are often 30.01.
SLACK = 0.1
# The number of samples if a stream's header does not give it.
UNKNOWN = 2**63 - 1


class TooLong(InputError):
    """Audio of more seconds than the limit."""


class Fit(enum.StrEnum):
    """The difference between the requested span and the span that is read.

    EXACT: none.
    CLIPPED: the request ends up to `SLACK` after the audio; it is read to the end of the audio.
    CUT: the request exceeds the limit by up to `SLACK`; it is read up to the limit.
    """

    EXACT = "exact"
    CLIPPED = "end clipped"
    CUT = "cut to limit"


@dataclasses.dataclass(frozen=True)
class Span:
    """Samples from `first` up to `last`, which is UNKNOWN if the header does not give the length."""

    first: int
    last: int
    fit: Fit


def span(
    name: str, start: float | None, end: float | None, rate: int, samples: int, longest: float
) -> Span:
    """The samples to read of audio with this many samples at this rate.

    Args:
        name: the audio's name in messages.
        start, end: seconds, default the beginning and the end.
        longest: the limit in seconds.

    Raises:
        TooLong: the span exceeds the limit by more than `SLACK`.
        InputError: the span begins before the audio, ends more than `SLACK` after it, or is empty.
    """
    first, last = _requested(name, start, end, rate, samples)
    fit = Fit.EXACT
    if last > samples:
        last = samples
        fit = Fit.CLIPPED
    if last != UNKNOWN and last - first > longest * rate:
        if last - first > (longest + SLACK) * rate:
            raise too_long(name, f"{(last - first) / rate:.1f} s", longest)
        last = first + int(longest * rate)
        fit = Fit.CUT
    return Span(first, last, fit)


def _requested(
    name: str, start: float | None, end: float | None, rate: int, samples: int
) -> tuple[int, int]:
    if start is None and end is None:
        return 0, samples
    start = start or 0.0
    stop = samples / rate if end is None else end
    if math.isfinite(start) and math.isfinite(stop):
        first = round(start * rate)
        last = samples if end is None else round(stop * rate)
        if 0 <= first < min(last, samples) and last <= samples + SLACK * rate:
            return first, last
    raise InputError(
        f"{name}: the span from {start:g} to {stop:g} s does not lie within its {samples / rate:g} s;"
        " change start and end in its record"
    )


def too_long(name: str, length: str, longest: float) -> TooLong:
    return TooLong(
        f"{name}: {length} is longer than the limit of {longest:g} s; split it, or set start and end in its record"
    )
