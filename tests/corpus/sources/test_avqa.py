"""AVQA: what only eyes can answer is dropped, and video becomes audio."""

import pytest

from sari_jax.corpus.sources import avqa
from sari_jax.data.ledger import Drop
from sari_jax.data.records import Clip, Record


def test_the_sample(built):
    found = built("avqa")
    assert found.records == {
        "avqa-184": Record(
            id="avqa-184",
            audio=(Clip(str(found.sounds / "-HIPq7T3eFI_000011.wav")),),
            question="What is the main source of sound in the audio?",
            choices=("Car", "motorcycle", "siren", "gun fire"),
            answer_index=0,
            task="sound",
            source="avqa",
            licence=avqa.LICENCE,
            kind="Come From",
        ),
        "avqa-191": Record(
            id="avqa-191",
            audio=(Clip(str(found.sounds / "0a1b2c3d4e5_30.wav")),),
            question="Which sound is heard in this audio?",
            choices=("dog", "cat", "cow", "duck"),
            answer_index=3,
            task="sound",
            source="avqa",
            licence=avqa.LICENCE,
            kind="Which",
        ),
    }
    assert found.drops == [
        (2, "visual question"),
        (3, "visual question"),
        (4, "sound file missing"),
        (5, "sound file empty"),
        (6, "bad field"),
        (7, "choices not distinct"),
        (8, "bad line"),
        (9, "bad field"),
    ]
    assert found.report["read"] == 10 and found.report["kept"] == 2


@pytest.mark.parametrize(
    ("question", "heard"),
    [
        ("Video or not?", "Audio or not?"),
        (
            "Do the videos, or this video's start, rustle?",
            "Do the audios, or this audio's start, rustle?",
        ),
        ("Is it a discolored bell?", "Is it a discolored bell?"),
    ],
)
def test_words_for_what_is_seen(question, heard):
    assert avqa.about_audio(question) == heard


@pytest.mark.parametrize("question", ["What Color is it?", "Which colours sound?"])
def test_a_question_for_a_colour(question):
    with pytest.raises(Drop) as caught:
        avqa.about_audio(question)
    assert caught.value.reason == "visual question"
