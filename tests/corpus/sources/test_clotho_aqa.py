"""Clotho-AQA: three people's answers to a question become one record, or none where they disagree."""

from collections import Counter

import pytest

from sari_jax.corpus.sources import clotho_aqa
from sari_jax.data.records import Clip

HEADER = "file_name,QuestionText,answer,confidence\n"


def test_the_sample(built):
    found = built("clotho-aqa")
    told = {
        record.question: (record.choices[record.answer_index], len(record.choices), record.kind)
        for record in found.records.values()
    }
    assert told == {
        "Are the birds singing?": ("yes", 2, "yes or no"),
        "What animal is heard?": ("birds", 4, "one word"),
        "What is falling?": ("rain", 4, "one word"),
        "What is running?": ("engine", 4, "one word"),
        "How many times does it stop?": ("three", 2, "one word"),
        "How many birds are there?": ("two", 2, "one word"),
    }
    singing = found.records["clotho-aqa-Birds.wav-Are the birds singing?"]
    assert singing.audio == (Clip(str(found.sounds / "Birds.wav")),)
    assert singing.choices == ("yes", "no") and singing.task == "sound"
    assert singing.licence == clotho_aqa.SOURCE.licence
    counted = found.records["clotho-aqa-Birds.wav-How many birds are there?"]
    assert set(counted.choices) == {"two", "three"}
    same, disagree = "answer given before", "annotators disagree"
    assert found.drops == [
        (3, same),
        (4, "outvoted answer"),
        (6, same),
        (7, "outvoted answer"),
        (9, "low confidence"),
        (10, same),
        (11, disagree),
        (12, disagree),
        (13, "low confidence"),
        (15, same),
        (16, "outvoted answer"),
        (18, same),
        (19, same),
        (21, same),
        (22, same),
        (23, "sound file missing"),
        (24, "bad field"),
        (25, "bad line"),
    ]
    assert found.report["read"] == 24 and found.report["kept"] == 6


@pytest.mark.parametrize(
    ("answers", "kept", "reasons"),
    [
        (("dog,yes", "dog,no", "cat,no"), "dog", ["low confidence", "low confidence"]),
        (("dog,no", "dog,no", "cat,yes"), "cat", ["low confidence", "low confidence"]),
        (("dog,yes", "cat,yes", "cow,yes"), None, ["annotators disagree"] * 3),
        (("dog,no", "cat,no", "cow,no"), None, ["low confidence"] * 3),
        (("Dog.,yes", "dog,yes"), "dog", ["answer given before"]),
    ],
)
def test_a_vote(tmp_path, answers, kept, reasons):
    path = tmp_path / "train.csv"
    path.write_text(HEADER + "".join(f"a.wav,Which?,{answer}\n" for answer in answers))
    rows = [row for _, row in clotho_aqa.read(path)]
    given = [row.answer for row in rows if isinstance(row, clotho_aqa.Asked)]
    assert given == ([kept] if kept else [])
    assert [row.reason for row in rows if not isinstance(row, clotho_aqa.Asked)] == reasons


def test_a_copy_without_confidence(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("file_name,QuestionText,answer\na.wav,Which?,dog\n")
    ((_, row),) = clotho_aqa.read(path)
    assert row.answer == "dog"


def test_wrong_choices_are_nobodys_answer_and_no_form_of_one(context):
    pool = Counter("yes no dog dogs doghouse cat water water three wolf".split())
    asked = clotho_aqa.Asked("a.wav", "Which?", "dog", frozenset({"dog", "wolf"}), pool)
    (draft,) = clotho_aqa.convert(asked, context)
    assert set(draft["choices"]) == {"dog", "cat", "water"}
