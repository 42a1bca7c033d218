"""Choices made by rule."""

from collections import Counter

import pytest

from sari_jax.corpus.sources.choices import mixed, named
from sari_jax.data.ledger import Drop


def test_the_same_for_the_same_seed_and_id_whatever_the_order():
    first = mixed("a", ["b", "c", "d", "e", "f"], 3, "x")
    assert first == mixed("a", ["f", "e", "d", "c", "b", "a", "b"], 3, "x")
    others = [mixed("a", "bcdef", 3, f"x{i}") for i in range(9)] + [mixed("a", "bcdef", 4, "x")]
    assert any(other != first for other in others)


def test_the_right_one_stands_anywhere_as_often():
    made = [mixed("right", ["b", "c", "d", "e"], 0, str(i)) for i in range(800)]
    assert all(each["choices"][each["answer_index"]] == "right" for each in made)
    places = Counter(each["answer_index"] for each in made)
    assert set(places) == {0, 1, 2, 3} and min(places.values()) > 150
    wrong = Counter(choice for each in made for choice in each["choices"]) - Counter(right=800)
    assert min(wrong.values()) > 500  # each of four in three of four


def test_what_has_more_weight_is_drawn_more_often():
    wrong = {"common": 8, "rare": 1, "seldom": 1}
    made = [mixed("right", wrong, 0, str(i), count=2)["choices"] for i in range(300)]
    drawn = Counter(choice for choices in made for choice in choices)
    assert drawn["common"] > 200 and 10 < drawn["rare"] < 60


def test_few_or_none_that_are_wrong():
    assert set(mixed("a", ["b"], 0, "x")["choices"]) == {"a", "b"}
    with pytest.raises(Drop) as caught:
        mixed("a", ["a"], 0, "x")
    assert caught.value.reason == "the file gives no wrong choice"


@pytest.mark.parametrize(
    ("answer", "choices", "index"),
    [
        ("a dog", ["a cat", "a dog"], 1),
        ("A", ["rain", "a train"], 0),
        ("(b).", ["rain", "a train"], 1),
        ("B. a train", ["rain", "a train"], 1),
        ("G", ["C", "G"], 1),
        ("B", ["B", "A"], 0),
    ],
)
def test_an_answer_by_text_or_letter(answer, choices, index):
    assert named(answer, choices) == {"choices": choices, "answer_index": index}


@pytest.mark.parametrize("answer", ["a bird", "C", "A. a train", ""])
def test_an_answer_that_names_none(answer):
    with pytest.raises(Drop) as caught:
        named(answer, ["rain", "a train"])
    assert caught.value.reason == "answer not among the choices"


def test_a_letter_that_is_a_text_too_where_letters_were_shown():
    with pytest.raises(Drop):
        named("B", ["B", "A"], lettered=True)
    assert named("A", ["A", "B"], lettered=True)["answer_index"] == 0
