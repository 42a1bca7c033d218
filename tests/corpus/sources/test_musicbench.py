"""MusicBench: a caption for each row, and questions by rule where its fields are there."""

import re

import pytest

from sari_jax.corpus.sources import musicbench
from sari_jax.data.ledger import Drop
from sari_jax.data.records import Clip


def test_the_sample(built):
    found = built("musicbench")
    a, b, c = (
        "musicbench-data-tone_a",
        "musicbench-data_aug2-tone_b_1",
        "musicbench-data-tone_c",
    )
    assert {name: caption.caption for name, caption in found.captions.items()} == {
        a: "A slow piano piece with soft strings. The key is Ab major.",
        b: "A fast waltz for accordion.",
        c: "A low-quality recording of a drum.",
    }
    right = {name: r.choices[r.answer_index] for name, r in found.records.items()}
    assert right == {
        f"{a}-key": "Ab major",
        f"{a}-tempo": "67 beats per minute",
        f"{a}-time-signature": "4/4",
        f"{a}-chords": "D, G/B, Bm7b5, Bb",
        f"{b}-key": "Eb minor",
        f"{b}-tempo": "182 beats per minute",
        f"{b}-time-signature": "3/4",
    }
    items = [*found.records.values(), *found.captions.values()]
    assert {(item.task, item.source, item.licence) for item in items} == {
        ("music", "musicbench", musicbench.SOURCE.licence)
    }
    assert found.captions[b].audio == (Clip(str(found.sounds / "data_aug2/tone_b_1.wav")),)
    assert found.records[f"{a}-time-signature"].kind == "time signature"
    assert found.drops == [
        (4, "sound file missing"),
        (5, "bad field"),
        (6, "bad field"),
        (7, "bad field"),
        (8, "bad line"),
    ]
    assert found.report["read"] == 8
    assert found.report["kinds"] == {"chords": 1, "key": 2, "tempo": 2, "time signature": 2}


@pytest.mark.parametrize(
    ("tonic", "same"), [("A#", "Bb"), ("Cb", "B"), ("E#", "F"), ("Gb", "F#"), ("D", "D")]
)
def test_a_key_has_one_name(tonic, same):
    asked = musicbench.key({"key": [tonic, "minor"]}, 0, "x")
    choices = asked["choices"]
    assert choices[asked["answer_index"]] == f"{same} minor"
    assert len(set(choices)) == 4 and all(choice.endswith(" minor") for choice in choices)


def tempos(bpm: float, name: str) -> tuple[list[int], int]:
    asked = musicbench.tempo({"bpm": bpm}, 0, name)
    return [int(choice.split()[0]) for choice in asked["choices"]], asked["answer_index"]


@pytest.mark.parametrize("bpm", [30, 43, 67, 99.6, 120, 181.5, 266, 300])
def test_tempos_stand_clearly_apart_and_none_is_twice_another(bpm):
    for i in range(20):
        values, index = tempos(bpm, str(i))
        assert values[index] == round(bpm) and 30 <= min(values) and max(values) <= 300
        for slow, fast in zip(sorted(values), sorted(values)[1:], strict=False):
            assert fast / slow > 1.25
        ratios = [a / b for a in values for b in values if a > b]
        assert not any(1.85 < ratio < 2.15 for ratio in ratios)


def test_the_right_tempo_is_neither_always_in_the_middle_nor_always_first():
    ranks, places = [0] * 4, [0] * 4
    for i in range(400):
        values, index = tempos(110, str(i))
        ranks[sorted(values).index(110)] += 1
        places[index] += 1
    assert min(ranks) > 70 and min(places) > 70


@pytest.mark.parametrize(
    ("row", "right"),
    [
        ({"beats": [[0.1, 0.5, 0.9], [1.0, 2.0, 3.0]], "prompt_bt": "The beat is 4."}, "3/4"),
        ({"beats": [[], []], "prompt_bt": "The time signature is 2/4."}, "2/4"),
        ({"prompt_bt": "The beat counts to 6."}, "6/4"),
        ({"beats": [[0.1], [1]]}, None),
        ({"prompt_bt": ""}, None),
        ({}, None),
    ],
)
def test_the_bar(row, right):
    asked = musicbench.time_signature(row, 0, "x")
    assert (asked and asked["choices"][asked["answer_index"]]) == right
    assert asked is None or len(set(asked["choices"])) == 3


def test_chords_are_the_same_transposed():
    asked = musicbench.chords({"chords": ["A#m7", "F/Db"]}, 0, "x")
    choices = asked["choices"]
    assert choices[asked["answer_index"]] == "Bbm7, F/C#"
    assert len(set(choices)) == 4
    assert all(re.fullmatch(r"[A-G][#b]?m7, [A-G][#b]?/[A-G][#b]?", choice) for choice in choices)


@pytest.mark.parametrize("heard", [["N"], ["C", "N", "G"], [], None, [7], [["C", 0.1]]])
def test_no_question_about_what_is_no_chord(heard):
    assert musicbench.chords({"chords": heard}, 0, "x") is None


@pytest.mark.parametrize("value", [["C", "dorian"], ["C"], [3, "major"], ["c", "major"]])
def test_a_key_that_is_none(value):
    with pytest.raises(Drop, match="must be a tonic"):
        musicbench.key({"key": value}, 0, "x")


@pytest.mark.parametrize("value", [0, 301, "90", True, float("nan")])
def test_a_tempo_that_is_none(value):
    with pytest.raises(Drop, match="must be from 30 to 300"):
        musicbench.tempo({"bpm": value}, 0, "x")
