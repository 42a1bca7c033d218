import pytest

from sari_jax.evaluate.matching import matches, words

CHOICES = ("Dog barking", "Cat", "Dog howling loudly", "No, it is not present.")


def test_words():
    assert words("No, it's C# - no_1!") == {"no", "it", "s", "c", "no_1"}
    assert words(" .,") == set()


@pytest.mark.parametrize(
    ("prediction", "right"),
    [
        ("Dog barking", True),
        ("barking DOG!", True),
        ("A big dog barking outside", True),
        ("Dog", False),  # a word is missing
        ("Dog barking loudly", False),  # a word of a wrong choice
        ("It is a dog barking", False),  # words of another wrong choice
        ("barkingdog", False),
        ("", False),
        ("...", False),
    ],
)
def test_matches(prediction, right):
    assert matches("Dog barking", prediction, CHOICES) is right


def test_a_wrong_choice_within_the_right_one_forbids_nothing():
    assert matches("dog and cat", "dog and cat", ("dog", "cat", "dog and cat"))
    assert not matches("dog", "dog and cat", ("dog", "cat", "dog and cat"))


def test_choices_of_equal_words_are_one():
    assert matches("A, B", "b a", ("A, B", "B, A", "C"))
    assert matches("dog", "dog", ("dog",))


def test_an_answer_without_words_needs_some_prediction():
    assert matches("?", "hm", ("?", "!"))
    assert not matches("?", "?", ("?", "!"))
