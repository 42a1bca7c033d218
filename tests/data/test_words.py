import doctest
import itertools
import time
import unicodedata

import pytest

from sari_jax.data import words
from sari_jax.data.words import folded, joined, normalise, plain


def test_the_examples_in_its_docstrings():
    failed, tried = doctest.testmod(words)
    assert tried > 4 and not failed


def test_normalise():
    assert normalise("  The\tDog's  “Hip-Hop”, (loud)! ") == "the dogs hip hop loud"
    assert normalise("C# minor, 4/4 at 3.5 or -3 °") == "c# minor 4/4 at 3.5 or -3 °"
    assert normalise("...") == normalise(" \x00 _ ") == ""


@pytest.mark.parametrize(
    "texts",
    [
        "C C# C+ C++ C♮ C- C-1 C1",
        "50 50% 50‰ $50 50$ €50 50° -50 +50 ±50 ~50 <50 >50 50+ #50 5.0 5:0 5/0 5,0 5-0 50^2 .50 ½50 5²0",
        "1.5 15 1,5 1:5 1/5 1-5 -1.5 -15 .15 1½",
        "1.000 1000 1.0",
        "5 50 500 ٥٠١ 105",
        "1½ ½ 11/2 12 1/12",
        "pêche péché peche pèche",
        "की कि कु क का के",  # Hindi: the vowel is a mark
        "หมา หม่า หม้า หม๊า",  # Thai: so is the tone
        "كَتَبَ كُتُب كتب",  # Arabic: and here
        "שָׁלוֹם שלום",
        "😀 😢 ♀ ♂ ♩ ♪",
        "A&B A/B A@B AB A+B",
        "ʰt th tʰ",
    ],
)
def test_what_carries_meaning_keeps_texts_apart(texts):
    """In the freest form, each in either encoding, with a full stop behind it or in quotes."""
    for one, other in itertools.combinations(texts.split(), 2):
        assert joined(one) and joined(one) != joined(other), (one, other)
        assert joined(f"“{one}”.") != joined(unicodedata.normalize("NFD", other))


@pytest.mark.parametrize(
    ("form", "one", "other"),
    [
        (plain, "pêche", unicodedata.normalize("NFD", "pêche")),
        (plain, " क़ ", unicodedata.normalize("NFD", "क़")),
        (folded, "ＤＯＧ", "dog"),
        (folded, "Straße", "STRASSE"),
        (folded, "3–4", "3-4"),
        (folded, "−3", "-3"),
        (folded, "C♯, B♭", "c#, bb"),
        (folded, "½ and 1½", "1/2 and 1 1/2"),
        (folded, "٣٫٥", "3.5"),
        (folded, "३", "3"),
        (folded, "20℃", "20°C"),
        (folded, "zero\u200bwidth\u00ad", "zerowidth"),
        (normalise, "don’t `know`", "don't know"),
        (normalise, "guinea-pig", "Guinea  pig!"),
        (normalise, "3-year-old", "3-year old"),
        (normalise, "A loud — very loud — dog", "a loud, very loud dog"),
        (normalise, "3 – 4 Hz", "3-4 Hz"),
        (normalise, ".5", "0.5"),
        (normalise, "-.5", "-0.5"),
        (normalise, "北京。", "「北京」"),
        (normalise, "कुत्ता।", "कुत्ता"),
        (joined, "440Hz", "440 Hz"),
        (joined, "50 %", "50%"),
        (joined, "C # major", "C# major"),
        (joined, "1,234,567", "1234567"),
    ],
)
def test_what_carries_none_does_not(form, one, other):
    assert form(one) == form(other) != ""


def test_lists_are_no_numbers_and_no_ranges():
    assert len({joined(text) for text in ("3 4", "34", "3-4", "3 -4", "1 2 34", "1 234")}) == 6
    assert joined("1234,567") == "1234,567"


@pytest.mark.parametrize(
    "text", ["- " * 20_000, ".-" * 20_000, "1," * 20_000, "\ud800\u0301" * 20_000, "1 " * 20_000]
)
def test_hostile_text_takes_time_with_its_length(text):
    begun = time.process_time()
    joined(text)
    assert time.process_time() - begun < 2
