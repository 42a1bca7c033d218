"""CoTA: four sections in its own tags, and an answer at the end of a sentence."""

from sari_jax.data.records import Clip, Record
from sari_jax.data.styles import STYLES


def test_the_sample(built):
    found = built("cota")
    licence = (
        "CoTA chains: no licence known to us; clips: the terms of the dataset that they come from"
    )
    assert found.records == {
        "cota-meld/wavs/0000001.wav": Record(
            id="cota-meld/wavs/0000001.wav",
            audio=(Clip(str(found.sounds / "meld/wavs/0000001.wav")),),
            question="Which scene fits the audio best?",
            choices=("A heartfelt apology", "A doctor's advice", "A quarrel", "A joke"),
            answer_index=2,
            task="speech",
            source="cota",
            licence=licence,
            chain_structured={
                "planning": "I listen to the tone.",
                "caption": "A sharp voice says: forget it.",
                "reasoning": "(a) would be soft. (c) is sharp.",
                "summary": "It is a quarrel.",
            },
        ),
        "cota-sound-7": Record(
            id="cota-sound-7",
            audio=(Clip(str(found.sounds / "audioset/7.wav")),),
            question="What is heard?",
            choices=("rain", "a train"),
            answer_index=1,
            task="sound",
            source="cota/AudioSet",
            licence=licence,
            chain_structured={
                "planning": "Listen.",
                "caption": "Wheels on rails.",
                "reasoning": "Rails mean a train.",
                "summary": "A train.",
            },
        ),
    }
    assert found.drops == [
        (3, "no choices in the question"),
        (4, "answer not among the choices"),
        (5, "sound file missing"),
        (6, "bad field"),
    ]
    assert found.report["read"] == 6
    style = STYLES["structured"]
    assert all(style.matches(style.render(record)) for record in found.records.values())
