"""R1-AQA's JSON lines: AVQA's fields with a path, and those of Ke-Omni-R without a relation."""

from sari_jax.data.records import Clip, Record


def test_the_sample(built):
    found = built("r1aqa")
    licence = "as the dataset in dataset_name; not stated in R1-AQA's form"
    assert found.records == {
        "r1aqa-184": Record(
            id="r1aqa-184",
            audio=(Clip(str(found.sounds / "wavs/-HIPq7T3eFI_11.wav")),),
            question="What is the main source of sound in the audio?",
            choices=("Car", "motorcycle", "siren", "gun fire"),
            answer_index=0,
            task="sound",
            source="r1aqa/AVQA",
            licence=licence,
            kind="Come From",
        ),
        "r1aqa-key_tone": Record(
            id="r1aqa-key_tone",
            audio=(Clip(str(found.sounds / "wavs/tone.wav")),),
            question="Which of the following key best fits this piece?",
            choices=("C major", "D major", "Eb major", "B major"),
            answer_index=2,
            task="music",
            source="r1aqa/MusicBench",
            licence=licence,
        ),
    }
    assert found.drops == [
        (3, "visual question"),
        (4, "sound file missing"),
        (5, "bad field"),
        (6, "bad field"),
    ]
    assert found.report["read"] == 6
