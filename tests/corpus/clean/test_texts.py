import pytest

from sari_jax.corpus.clean.texts import (
    alike,
    choices_alike,
    choices_key,
    plain_text,
    sorted_words,
)


def test_texts_are_compared_in_plain():
    assert plain_text(" What's  HEARD?") == "whats heard"
    assert plain_text("?!") == "?!"
    assert sorted_words("Which one plays first?") == "first one plays which"


def test_choices_in_any_order():
    assert choices_key(("Dog", "cat.")) == choices_key(("cat", "dog"))
    assert choices_key(("C", "C#")) != choices_key(("C", "C"))


@pytest.mark.parametrize(
    ("a", "b", "least", "most"),
    [
        ("dog", "dog", 100, 100),
        ("120 bpm", "130 bpm", 0, 0),
        ("a dog barks loudly", "a dog barks loudy", 95, 99),
        ("dog", "violin", 0, 50),
    ],
)
def test_how_alike_texts_are(a, b, least, most):
    assert least <= alike(a, b) <= most


def test_choices_alike():
    assert choices_alike(("a dog", "a cat"), ("a cat", "a dog")) == 100
    assert choices_alike(("60", "80"), ("60", "90")) == 0
    assert choices_alike(("dog", "cat"), ("dog", "cat", "hen")) == 0
    assert choices_alike(("man", "woman"), ("man", "robot")) < 60
