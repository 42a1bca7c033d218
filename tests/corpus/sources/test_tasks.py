"""What a row is about."""

import pytest

from sari_jax.corpus.sources.tasks import task_of


@pytest.mark.parametrize(
    ("hints", "task"),
    [
        (("Speech", "MusicBench"), "speech"),
        (("temporal", "LP-MusicCaps-MTT"), "music"),
        ((None, "data/meld/wavs/1.wav"), "speech"),
        (("AudioCaps",), "sound"),
        ((), "sound"),
    ],
)
def test_the_first_hint_that_tells(hints, task):
    assert task_of(*hints) == task
