"""Which samples of a sound are heard: the span that is asked for, held to what there is and to what may be heard."""

import dataclasses
import enum
import math

from sari_jax.errors import InputError

# Hz of every waveform that the package computes with.
SAMPLE_RATE = 16_000
LONGEST = 600.0  # seconds; the audio towers take 30 or 300
# Seconds by which a span may end behind its sound, or last longer than it may. Times are rounded, encoders pad to whole
# frames, and the "30 s" of corpora are often 30.01.
SLACK = 0.1
UNKNOWN = 2**63 - 1  # samples, where a stream's header leaves its length open


class TooLong(InputError):
    """A sound of more seconds than were allowed."""


class Fit(enum.StrEnum):
    """How what is heard compares with what was asked for."""

    EXACT = "exact"
    CLIPPED = "end clipped"  # asked for up to `SLACK` past the sound's end: heard to its end
    CUT = "cut to limit"  # up to `SLACK` longer than may be heard: its beginning is heard


@dataclasses.dataclass(frozen=True)
class Span:
    """Samples from `first` up to `last`, which is UNKNOWN where the header leaves the length open."""

    first: int
    last: int
    fit: Fit


def span(
    called: str, start: float | None, end: float | None, rate: int, samples: int, longest: float
) -> Span:
    """What is heard of a sound of so many samples at that rate, by its header alone.

    Args:
        called: what messages call the sound.
        start, end: seconds, default the beginning and the end.
        longest: seconds that may be heard.

    Raises:
        TooLong: it lasts more than `SLACK` longer than that.
        InputError: it begins before the sound, ends more than `SLACK` behind it, or holds nothing.
    """
    first, last = _asked(called, start, end, rate, samples)
    fit = Fit.EXACT
    if last > samples:
        last, fit = samples, Fit.CLIPPED
    if last != UNKNOWN and last - first > longest * rate:
        if last - first > (longest + SLACK) * rate:
            raise too_long(called, f"{(last - first) / rate:.1f} s", longest)
        last, fit = first + int(longest * rate), Fit.CUT
    return Span(first, last, fit)


def _asked(
    called: str, start: float | None, end: float | None, rate: int, samples: int
) -> tuple[int, int]:
    if start is None and end is None:
        return 0, samples
    begin, until = start or 0.0, samples / rate if end is None else end
    if math.isfinite(begin) and math.isfinite(until):
        first = round(begin * rate)
        last = samples if end is None else round(until * rate)
        if 0 <= first < min(last, samples) and last <= samples + SLACK * rate:
            return first, last
    raise InputError(
        f"{called}: the span from {begin:g} to {until:g} s does not lie within its {samples / rate:g} s"
    )


def too_long(called: str, length: str, longest: float) -> TooLong:
    return TooLong(
        f"{called}: {length} exceeds {longest:g} s; split it, or name a span by start and end"
    )
