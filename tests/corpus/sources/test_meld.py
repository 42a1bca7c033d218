"""MELD: a caption still to be written and two questions by rule for each utterance."""

import dataclasses

import pytest

from sari_jax.corpus.captions import Caption
from sari_jax.corpus.sources import meld
from sari_jax.data.records import Clip


def test_the_sample(built):
    found = built("meld")
    first = "meld-train_sent_emo-dia0_utt0"
    assert found.captions[first] == Caption(
        id=first,
        audio=(Clip(str(found.sounds / "dia0_utt0.wav")),),
        task="speech",
        source="meld",
        licence=meld.SOURCE.licence,
        labels=("emotion: surprise", "sentiment: negative", "says: Oh my God, we’re late!"),
    )
    right = {name: r.choices[r.answer_index] for name, r in found.records.items()}
    assert right == {
        f"{first}-emotion": "surprise",
        f"{first}-sentiment": "negative",
        "meld-train_sent_emo-dia0_utt1-emotion": "neutral",
        "meld-train_sent_emo-dia0_utt1-sentiment": "neutral",
        "meld-train_sent_emo-dia0_utt2-emotion": "joy",
        "meld-train_sent_emo-dia0_utt2-sentiment": "positive",
    }
    for record in found.records.values():
        assert record.task == "speech" and record.audio == found.captions[_clip(record.id)].audio
        known = meld.EMOTIONS if record.kind == "emotion" else meld.SENTIMENTS
        assert len(set(record.choices)) == min(4, len(known)) and set(record.choices) <= set(known)
    assert len(found.captions) == 3
    assert found.drops == [(5, "sound file missing"), (6, "bad field"), (7, "bad line")]
    assert found.report["read"] == 6


def _clip(name: str) -> str:
    return name.rpartition("-")[0]


@pytest.mark.parametrize(
    ("split", "found"),
    [("test_sent_emo", "final_videos_testdia0_utt1.wav"), ("dev_sent_emo", "dia0_utt1.wav")],
)
def test_clips_of_the_test_split_that_are_there_twice(context, split, found):
    for name in ("dia0_utt1.wav", "final_videos_testdia0_utt1.wav"):
        (context.root / name).write_bytes(b"")
    row = {"Utterance": "Hi", "Emotion": "joy", "Sentiment": "positive"}
    row |= {"Dialogue_ID": "0", "Utterance_ID": "1"}
    first, *_ = meld.convert(row, dataclasses.replace(context, name=split))
    assert first["audio"] == [{"path": found}]


def test_quotes_of_windows_are_mended(context):
    row = {"Utterance": "we\x92re \x96 here\x81", "Emotion": "joy", "Sentiment": "positive"}
    drafts = meld.convert(row | {"Dialogue_ID": "0", "Utterance_ID": "1"}, context)
    assert drafts[0]["labels"][2] == "says: we’re – here"
