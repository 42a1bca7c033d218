"""Spoken words: the same each time, and trimmed."""

import numpy as np
import pytest

from sari_jax.audio.spans import SAMPLE_RATE
from sari_jax.corpus.sources.starter.speech import Speaker, trim
from sari_jax.errors import InputError


@pytest.fixture(scope="module")
def speaker():
    return Speaker()


# f2 breathes: its noise would otherwise be seeded with the clock.
@pytest.mark.parametrize("voice", ["en-us+m1", "en-us+f2", "de+Alicia"])
def test_two_speakers_say_the_same_bits(voice):
    first, second = Speaker(), Speaker()
    for text in ("one", "window", "one"):
        np.testing.assert_array_equal(first.say(text, voice), second.say(text, voice))


def test_a_word_is_short_and_fills_its_clip(speaker):
    samples = speaker.say("window", "en-us+m1")
    assert samples.dtype == np.float32
    assert 0.3 < len(samples) / SAMPLE_RATE < 1.0
    np.testing.assert_allclose(np.abs(samples).max(), 0.5, rtol=1e-5)
    start, end = np.abs(samples[:1024]).max(), np.abs(samples[-1024:]).max()
    assert min(start, end) > 0.005


def test_pace_and_voice_are_heard(speaker):
    slow, fast = (speaker.say("good morning my friend", "en-us+m1", pace) for pace in (120, 240))
    assert len(slow) > 1.3 * len(fast)
    assert not np.array_equal(speaker.say("one", "en-us+m1"), speaker.say("one", "en-us+f1"))


def test_beyond_ascii(speaker):
    assert len(speaker.say("où est la gare", "fr+m1")) > 0.5 * SAMPLE_RATE


def test_an_unknown_voice(speaker):
    with pytest.raises(InputError, match="no voice 'en-us-nobody'"):
        speaker.say("one", "en-us-nobody")


def test_trim_cuts_silence_and_sets_the_peak():
    tone = 0.1 * np.sin(np.arange(8000) / 5).astype(np.float32)
    silence = np.zeros(4000, np.float32)
    trimmed = trim(np.concatenate([silence, tone, silence]))
    assert len(tone) <= len(trimmed) < len(tone) + 1024
    np.testing.assert_allclose(np.abs(trimmed).max(), 0.5, rtol=1e-5)
