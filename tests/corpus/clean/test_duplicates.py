import dataclasses

import pytest

from sari_jax.corpus.clean import duplicates
from sari_jax.corpus.clean.duplicates import find_duplicates

QUESTION = "Which of these instruments plays the melody in the second half?"


@pytest.fixture
def make(make_record):
    return lambda **changes: make_record(**({"question": QUESTION} | changes))


def test_exact_whatever_case_punctuation_and_order(make):
    one = make(id="a")
    other = make(
        id="b",
        question=QUESTION.upper().replace("?", " ..."),
        choices=("Hen", "cat", "dog!"),
        answer_index=2,
    )
    assert find_duplicates([one, other], [(0,), (0,)]) == {
        1: ("exact duplicate", "of a: question, choices and sound are the same")
    }


def test_the_same_question_about_another_sound_is_none(make):
    records = [make(id=str(i)) for i in range(5)]
    assert find_duplicates(records, [(i,) for i in range(5)]) == {}


def test_another_question_about_the_same_sound_is_none(make):
    others = [
        make(id="b", question="How many instruments play in the second half of the melody?"),
        make(id="c", answer_index=0),
        make(id="d", choices=("goat", "dog", "hen")),
        make(id="e", question=QUESTION.replace("second", "first")),
    ]
    assert find_duplicates([make(id="a"), *others], [(0,)] * 5) == {}


def test_near_sound_and_near_text(make):
    one, other = make(id="a"), make(id="b", question=QUESTION.replace("the melody", "a melody"))
    near = [(0, 1, 0.125)]
    (found,) = find_duplicates([one, other], [(0,), (1,)], near).values()
    assert found[0] == "near duplicate" and found[1].startswith("of a: question 95 and choices 100")
    assert "12% of the sound's bits differ" in found[1]
    assert find_duplicates([one, other], [(0,), (2,)], near) == {}
    assert (
        find_duplicates([one, dataclasses.replace(other, answer_index=0)], [(0,), (1,)], near) == {}
    )


def test_every_clip_counts(make):
    records = [make(id="a"), make(id="b"), make(id="c"), make(id="d")]
    sounds = [(0, 1), (0, 2), (0,), (0, 3)]
    found = find_duplicates(records, sounds, [(1, 3, 0.1)])
    assert list(found) == [3] and "of a" in found[3][1]


def test_the_first_stays_and_is_named(make):
    records = [make(id=name) for name in "abcd"]
    found = find_duplicates(records, [(0,), (1,), (2,), (0,)], [(0, 1, 0.1), (1, 2, 0.1)])
    # c is near b, which is gone: it stays.
    assert {row: detail[:5] for row, (_, detail) in found.items()} == {1: "of a:", 3: "of a:"}


def test_one_of_a_crowd_stays(make):
    """Each of thirty copies is near the first and the one before it; ten questions are asked of three copies each."""
    near = [(0, i, 0.1) for i in range(1, 30)] + [(i - 1, i, 0.1) for i in range(2, 30)]
    records = [make(id=str(i), question=f"Question {i % 10}: {QUESTION}") for i in range(30)]
    found = find_duplicates(records, [(i,) for i in range(30)], near)
    assert list(found) == list(range(10, 30))
    assert {row: detail.split(":")[0] for row, (_, detail) in found.items()} == {
        row: f"of {row % 10}" for row in range(10, 30)
    }


def test_only_questions_of_the_same_answer_are_compared(make, monkeypatch):
    compared = []
    monkeypatch.setattr(duplicates, "alike", lambda a, b: compared.append((a, b)) or 0.0)
    records = [make(id=str(i), choices=(f"animal {i}", "dog"), answer_index=0) for i in range(50)]
    records += [make(id="more", choices=("animal 7", "dog", "hen"), answer_index=0)]
    assert find_duplicates(records, [(0,)] * 51) == {} and compared == []
