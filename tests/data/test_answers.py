import pytest

from sari_jax.data.answers import choice_index, normalise

ANIMALS = ("cat", "dog", "guinea pig")


def test_normalise():
    assert normalise("  The\tDog's  “Hip-Hop”, (loud)! ") == "the dogs hip hop loud"
    assert normalise("C# minor, 4/4 at 3.5 or -3 °") == "c# minor 4/4 at 3.5 or -3 °"
    assert normalise("...") == ""


@pytest.mark.parametrize(
    ("answer", "choices", "index"),
    [
        ("dog", ANIMALS, 1),
        ("  DOG.\n", ANIMALS, 1),
        ("'dog'", ANIMALS, 1),
        ("guinea-pig", ANIMALS, 2),
        ("Guinea   pig!", ANIMALS, 2),
        ("ｄｏｇ", ANIMALS, 1),  # full-width letters
        ("(B) dog", ANIMALS, 1),
        ("B. dog", ANIMALS, 1),
        ("b) Dog.", ANIMALS, 1),
        ("C: guinea pig", ANIMALS, 2),
        ("(B)", ANIMALS, 1),
        ("B.", ANIMALS, 1),
        ("b", ANIMALS, 1),
        ("(A) dog", ANIMALS, None),  # letter and text disagree
        ("(B) horse", ANIMALS, None),
        ("D", ANIMALS, None),  # no fourth choice
        ("(Z) dog", ANIMALS, None),
        ("a dog", ANIMALS, None),
        ("dog or cat", ANIMALS, None),
        ("dogs", ANIMALS, None),
        ("", ANIMALS, None),
        (" . ", ANIMALS, None),
        ("dog", (), None),
        # What punctuation alone tells apart.
        ("C", ("C#", "C"), 1),
        ("C#", ("C#", "C"), 0),
        ("c# .", ("C#", "C"), 0),
        ("-3", ("3", "-3"), 1),
        ("-3.", ("3", "-3"), 1),
        ("-3", ("3", "4"), None),
        ("3.5", ("35", "3.5"), 1),
        ("4/4", ("44", "4/4"), 1),
        ("wait", ("Wait!", "wait?"), None),
        ("wait?", ("Wait!", "wait?"), 1),
        ("Yes ", ("yes", "Yes"), 1),
        ("YES", ("yes", "Yes"), None),  # either
        ("yes", ("no", "yes", "yes"), 1),  # the same, given twice
        # Choices that are letters, or hold them.
        ("A", ("C", "A", "D"), 1),
        ("(A)", ("C", "A", "D"), 1),
        ("A", ("G major", "A major"), None),
        ("B", ("G major", "A major"), 1),
        ("A. G major", ("G major", "A major"), 0),
        ("E. coli", ("E. coli", "yeast"), 0),
        # Sound, not regular, text.
        ("don't know", ("Don’t know", "know"), 0),
        ("北京。", ("上海", "北京"), 1),
    ],
)
def test_choice_index(answer, choices, index):
    assert choice_index(answer, choices) == index


def test_every_choice_names_itself_in_every_form():
    for i, choice in enumerate(ANIMALS):
        letter = "ABC"[i]
        for form in (
            choice,
            choice.upper(),
            f"({letter}) {choice}",
            f"{letter}. {choice}",
            f"{letter}) {choice}.",
        ):
            assert choice_index(form, ANIMALS) == i
