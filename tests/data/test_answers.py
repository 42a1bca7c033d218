import doctest
import re
import time
import unicodedata
from pathlib import Path

import pytest

from sari_jax.data import answers
from sari_jax.data.answers import choice_index, is_right

DOCS = Path(__file__).parents[2] / "docs/evaluation.md"
ANIMALS = ("cat", "dog", "guinea pig")


def documented() -> list[tuple[list[str], str, str]]:
    """The rows of the table in the docs: choices, the answer, and the choice that it names or "none"."""
    text = DOCS.read_text(encoding="utf-8")
    table = text.split("| choices | answer | names |\n|---|---|---|\n")[1].split("\n\n")[0]
    rows = []
    for line in table.splitlines():
        choices, answer, named = line.strip("|").split(" | ")
        inside = [re.findall(r"`` (.*?) ``|`(.*?)`", cell) for cell in (choices, answer, named)]
        several, (said,), one = [[a or b for a, b in found] for found in inside]
        rows.append((several, said, one[0] if one else named.strip()))
    return rows


def test_the_examples_in_its_docstrings():
    failed, tried = doctest.testmod(answers)
    assert tried > 3 and not failed


def test_the_table_in_the_docs_says_what_is_done():
    rows = documented()
    assert len(rows) > 40 and sum(named == "none" for *_, named in rows) > 12
    for choices, answer, named in rows:
        index = choice_index(answer, choices)
        assert (choices[index] if index is not None else "none") == named, (choices, answer)


@pytest.mark.parametrize(
    ("answer", "choices", "index"),
    [
        ("dog", ANIMALS, 1),
        ("  DOG.\n", ANIMALS, 1),
        ("'dog'", ANIMALS, 1),
        ("Guinea   pig!", ANIMALS, 2),
        ("ｄｏｇ", ANIMALS, 1),  # full-width letters
        ("C: guinea pig", ANIMALS, 2),
        ("B.", ANIMALS, 1),
        ("b", ANIMALS, 1),
        ("(A) dog", ANIMALS, None),  # letter and text disagree
        ("(B) horse", ANIMALS, None),
        ("D", ANIMALS, None),  # no fourth choice
        ("(Z) dog", ANIMALS, None),
        ("a dog", ANIMALS, None),
        ("dog or cat", ANIMALS, None),
        ("A or B", ANIMALS, None),
        ("The answer is not B", ANIMALS, None),
        ("Option pricing", ("pricing", "options"), None),
        ("dogs", ANIMALS, None),
        ("", ANIMALS, None),
        (" . ", ANIMALS, None),
        ("dog", (), None),
        ("", ("", "dog"), None),
        # What punctuation alone tells apart.
        ("C", ("C#", "C"), 1),
        ("c# .", ("C#", "C"), 0),
        ("-3.", ("3", "-3"), 1),
        ("-3", ("3", "4"), None),
        ("- 3", ("3", "-3"), 1),
        ("Answer: − 3.", ("3", "4"), None),
        ("− 3 dB", ("3 dB", "-3 dB"), 1),
        ("- .5", ("0.5", "-0.5"), 1),
        ("3", ("− 3", "4"), None),
        ("3 - 4", ("3-4", "3", "-4"), 0),
        ("B, cat", ("dog", "cat"), 1),
        ("B，cat", ("dog", "cat"), 1),
        ("B = cat", ("dog", "cat"), 1),
        ("B (cat)", ("dog", "cat"), 1),
        ("cat (B)", ("dog", "cat"), 1),
        ("The answer is cat [b].", ("dog", "cat"), 1),
        ("**cat** （B）", ("dog", "cat"), 1),
        ("dog (B)", ("dog", "cat"), None),
        ("B [cat]", ("dog", "cat"), 1),
        ("B（猫）", ("狗", "猫"), 1),
        ("cat (2)", ("1) dog", "2) cat"), 1),
        ("cat (1)", ("1) dog", "2) cat"), None),
        ("C (B)", ("B", "C"), 1),
        ("A (B)", ("B", "A"), None),  # by its letter the first, or the second
        ("A (B)", ("C", "A", "B"), 1),
        ("A, B", ("B", "A"), None),
        ("A = B", ("B", "A"), None),
        ("I choose A, B", ("B", "A"), None),
        ("A, 5", ("5", "6"), 0),
        ("vitamin (B)", ("vitamin (B)", "vitamin (A)"), 0),
        ("vitamin (B)", ("vitamin (C)", "vitamin (A)"), None),
        ("I would choose option (B).", ("dog", "cat"), 1),
        ("I choose a cat", ("dog", "a cat"), 1),
        ("I choose dog", ("dog", "cat"), 0),
        ("I'd pick the answer **B**", ("dog", "cat"), 1),
        ("I’ll select dog.", ("dog", "cat"), 0),
        ("I choose option pricing", ("pricing", "option pricing"), 1),
        ("I choose the dog", ("dog", "the dog"), 1),
        ("I choose not B", ("dog", "cat"), None),
        ("I choose A or B", ("dog", "cat"), None),
        ("B, dog", ("dog", "cat"), None),
        ("A, B", ("A, B", "C, D"), 0),
        ("A, B", ("A", "B"), None),
        ("<answer>B</answer>", ("dog", "cat"), 1),
        ("−3", ("3", "4"), None),
        ("3.5", ("35", "3.5"), 1),
        ("4/4", ("44", "4/4"), 1),
        ("2**3", ("23", "8"), None),
        ("10²", ("102", "100"), None),
        ("C-1", ("C1", "D1"), None),
        ("A-", ("A", "B"), None),
        ("wait", ("Wait!", "wait?"), None),
        ("wait?", ("Wait!", "wait?"), 1),
        ("[0, 1]", ("[0,1]", "(0,1)"), None),
        ("“[0,1]”", ("(0,1)", "[0,1]"), 1),
        # Case, where nothing else differs.
        ("Yes ", ("yes", "Yes"), 1),
        ("YES", ("yes", "Yes"), None),
        ("B. YES", ("yes", "Yes"), 1),
        ("**A minor**", ("a minor", "A minor"), 1),
        ("yes", ("no", "yes", "yes"), 1),  # the same, given twice
        # Choices that are letters, or hold them.
        ("(A)", ("C", "A", "D"), 1),
        ("Option A", ("C", "A", "D"), 1),
        ("B. A", ("B", "A"), 1),
        ("B. B", ("B", "A"), None),
        ("A", ("G major", "A major"), None),
        ("B", ("G major", "A major"), 1),
        ("B", ("G major", "B major"), 1),
        ("A. G major", ("G major", "A major"), 0),
        ("E. coli", ("E. coli", "yeast"), 0),
        ("A dog", ("dog", "a dog"), 1),
        ("A. dog", ("dog", "a dog"), None),  # the first by its letter, the second by its words
        # Choices that carry letters or numbers.
        ("b", ("(a) dog", "(b) cat"), 1),
        ("\\boxed{\\text{B. cat}}", ("A. dog", "B. cat"), 1),
        ("Answer: (A)", ("B: cat", "A: dog"), 1),
        ("A. cat", ("A. dog", "B. cat"), None),
        ("dog", ("A、dog", "B、cat"), 0),
        ("C", ("B. cat", "D. dog"), None),
        ("2", ("1) dog", "2) cat"), 1),
        ("A", ("p.m.", "a.m."), None),
        ("(B) 2) cat", ("1) dog", "2) cat"), 1),
        ("(A) C:maj7", ("C:maj7", "D:maj7(11)"), 0),
        ("4 time", ("4:4 time", "3:4 time"), None),
        ("B", ("A, B", "C, D"), None),
        ("A、B", ("B", "A"), None),
        # Sound, not regular, text.
        ("don't know", ("Don’t know", "know"), 0),
        ("北京。", ("上海", "北京"), 1),
        ("选项B", ("上海", "北京"), 1),
        ("कि", ("की", "को"), None),
        ("หมา", ("หม้า", "แมว"), None),
        ("כלב", ("כֶּלֶב", "חתול"), None),
    ],
)
def test_choice_index(answer, choices, index):
    assert choice_index(answer, choices) == index


PLAIN = [
    ANIMALS,
    ("C major", "C# major", "Cb major", "c minor", "C minor"),
    ("dog", "dog and cat", "cat and dog", "cat"),
    ("50", "50%", "-50", "5.0", "$50", "50°", "5-0", "<50"),
    ("1,000", "1000", "1.000", "100"),
    ("C++", "C#", "C--", "C/C"),
    ("pêche", "péché", "peche"),
    ("कि", "की", "कु"),
    ("หมา", "หม่า", "หม้า"),
    ("كَتَبَ", "كُتُب", "كتب"),
    ("yes", "Yes", "YES"),
    ("Option A", "Option B"),
]
LETTERED = [
    ("B", "A", "D", "C"),
    ("A. dog", "B. cat"),
    ("(b) cat", "(a) dog"),
    ("1. dog", "2. cat"),
]


@pytest.mark.parametrize("choices", PLAIN + LETTERED)
def test_every_choice_names_itself_and_no_other(choices):
    """As it stands, in either encoding of its accents, in marks, after words; plain ones after their letter too."""
    for index, choice in enumerate(choices):
        letter, apart = chr(ord("A") + index), unicodedata.normalize("NFD", choice)
        around = [
            "{}",
            " {}\n",
            "**{}**",
            "“{}”",
            "Answer: {}",
            "\\boxed{{{}}}",
            "The correct answer is {}.",
        ]
        if choices in PLAIN:
            around += [
                f"({letter}) {{}}",
                f"{letter}. {{}}",
                f"{letter}、{{}}",
                f"Option {letter}: {{}}",
            ]
        for form in around:
            for text in (choice, apart):
                assert choice_index(form.format(text), choices) == index, form.format(text)
                assert is_right(form.format(text), choices, index)


def test_a_right_choice_given_twice_is_right_in_either_encoding():
    twice = ("pêche", "dog", unicodedata.normalize("NFD", "pêche"))
    assert choice_index("pêche", twice) == 0
    assert is_right("pêche", twice, 2) and is_right("A", twice, 2) and not is_right("dog", twice, 2)


@pytest.mark.parametrize(
    "answer",
    ["(" * 1000, "answer is " * 100, "the " * 250, "a\u0301\u0316" * 300, "$" * 1000, "A. " * 300, "\ud800" * 1000,
     "*" * 10**6, "a" + "\u0301\u0316" * 10**6, "Option " * 10**5],
)  # fmt: skip
def test_hostile_answers_take_little_time(answer):
    begun = time.process_time()
    assert choice_index(answer, ("dog", "A. cat")) is None
    assert time.process_time() - begun < 1
