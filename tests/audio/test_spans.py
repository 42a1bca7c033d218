import math

import pytest

from sari_jax.audio.spans import UNKNOWN, Fit, Span, TooLong, span
from sari_jax.errors import InputError

RATE = 22_050


def fit(start, end, seconds, longest=30.0):
    """What is heard of a sound of so many seconds: its first and last, and how it fits."""
    found = span("a.wav", start, end, RATE, round(seconds * RATE), longest)
    return round(found.first / RATE, 3), round(found.last / RATE, 3), found.fit


def test_what_is_asked_for_is_heard():
    assert fit(None, None, 10) == (0, 10, Fit.EXACT)
    assert fit(2, None, 10) == (2, 10, Fit.EXACT)
    assert fit(None, 4, 10) == (0, 4, Fit.EXACT)
    assert fit(2, 10, 10) == (2, 10, Fit.EXACT)
    assert fit(None, None, 30) == (0, 30, Fit.EXACT)
    assert fit(5, 35, 300) == (5, 35, Fit.EXACT)


def test_an_end_just_behind_the_sound_is_its_end():
    """As by rounding: 12.3 s of a clip of 12.2953 s."""
    assert fit(None, 12.3, 12.2953) == (0, 12.295, Fit.CLIPPED)
    assert fit(9.9, 10.09, 10) == (9.9, 10, Fit.CLIPPED)
    assert fit(None, 30.05, 30) == (0, 30, Fit.CLIPPED)


@pytest.mark.parametrize(
    ("start", "end"), [(None, 10.11), (9.9, 20), (10, 10.05), (10.02, 10.05), (10, None), (-0.1, 5)]
)
def test_a_span_that_does_not_lie_within_the_sound(start, end):
    with pytest.raises(InputError, match=r"a.wav: the span from .* does not lie within its 10 s"):
        fit(start, end, 10)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_times_that_are_none(value):
    for start, end in ((value, 5.0), (1.0, value)):
        with pytest.raises(InputError, match="does not lie within"):
            fit(start, end, 10)


def test_what_is_hardly_too_long_is_cut():
    """GTZAN's clips "of 30 s" last 30.013 s."""
    assert fit(None, None, 661_794 / RATE) == (0, 30, Fit.CUT)
    assert fit(None, None, 30.1) == (0, 30, Fit.CUT)
    assert fit(5, 35.05, 300) == (5, 35, Fit.CUT)
    assert fit(None, 30.09, 30.02) == (0, 30, Fit.CUT)  # both: what counts is that it is not whole
    for start, end, seconds in ((None, None, 30.2), (5, 35.11, 300), (None, 31, 31)):
        with pytest.raises(
            TooLong, match=r"a.wav: 3\d\.\d s is longer than the limit of 30 s; split it"
        ):
            fit(start, end, seconds)


def test_a_sound_of_unknown_length():
    assert span("a.flac", None, None, RATE, UNKNOWN, 30) == Span(0, UNKNOWN, Fit.EXACT)
    assert span("a.flac", 1, 2, RATE, UNKNOWN, 30) == Span(RATE, 2 * RATE, Fit.EXACT)
