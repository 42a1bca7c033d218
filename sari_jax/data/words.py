"""Normal forms by which texts are compared, from strict to loose; none drops a sign, mark or digit with meaning."""

import re
import unicodedata
from collections.abc import Callable

# Punctuation that carries meaning; full stop, comma, colon and hyphen only beside digits.
_KEPT = frozenset("#%&/@‰‱′″‴.,:-")
# Spellings of characters that are used instead of Unicode's compatibility form.
_SPELT = {
    **dict.fromkeys("'`´ʼ‘’", "'"),
    **dict.fromkeys("‐‑‒–−", "-"),
    **dict.fromkeys("—―", " - "),
    **{"♯": "#", "♭": "b", "˚": "°", "⁄": "/", "٫": ".", "٬": ","},
}
_ALONE = re.compile(r"(?<!\d)[.,:]|[.,:](?!\d)")
_HYPHEN = re.compile(r"-{2,}|(?<!\S)-(?!\S)|(?<=\S)-(?=[^\s\d])")
_MINUS = re.compile(r"(?<!\S)- (?=\.?\d)")  # of "- 3"; in "3 - 4" it marks a range
_POINT = re.compile(r"(?<![\w.,:])\.(?=\d)")  # .5 is 0.5 and not 5
_RANGE = re.compile(r"(?<=\d) - (?=\d)")
_THOUSANDS = re.compile(r"(?<=\d)(?<!\d{4}),(?=\d{3}(?!\d))")


def plain(text: str) -> str:
    """Returns the text with single spaces and composed accents.

    >>> plain(" pe\\u0302che ") == "p\\u00eache"
    True
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def folded(text: str) -> str:
    """Returns the text without case, and with one spelling of dashes, quotes, digits, fractions and full-width letters.

    >>> folded("Ｃ♯ −3 1½ 10² ３–４")
    'c# -3 1 1/2 10^2 3-4'
    """
    spelt = unicodedata.normalize("NFC", text).translate(_SPELLING)
    return " ".join(unicodedata.normalize("NFKC", spelt).casefold().split())


def normalise(text: str) -> str:
    """Returns the folded words with single spaces and without punctuation that carries no meaning.

    It keeps letters, their marks, digits, symbols (+ < = > $ °) and the signs # % & / @. It keeps a point, comma or
    colon between digits, and a hyphen before a digit or at one end of a word.

    >>> normalise("The dog's “hip-hop”, (LOUD)!")
    'the dogs hip hop loud'
    >>> normalise("C# minor, 4/4 at 3.5 or -3 °C; 3 – 4, .5")
    'c# minor 4/4 at 3.5 or -3 °c 3-4 0.5'
    """
    words = " ".join(folded(text).translate(_CHARACTERS).split())
    words = _RANGE.sub("-", words)
    words = _MINUS.sub("-", words)
    words = _POINT.sub("0.", words)
    return " ".join(_HYPHEN.sub(" ", _ALONE.sub(" ", words)).split())


def joined(text: str) -> str:
    """Returns the normalised text without spaces between numbers and units, and without thousands separators.

    >>> joined("1,000 Hz at 50 %") == joined("1000Hz at 50%")
    True
    """
    first, *rest = _THOUSANDS.sub("", normalise(text)).split() or [""]
    parts = [first]
    for before, word in zip([first, *rest], rest, strict=False):
        apart = _kind(before[-1]) == _kind(word[0]) or word[0] == "-" or before[-1] == "-"
        parts.append(f" {word}" if apart else word)
    return "".join(parts)


def _kind(character: str) -> str:
    """Returns "digit", "sign" or "word"."""
    category = unicodedata.category(character)
    return "digit" if category == "Nd" else "sign" if category[0] in "SP" else "word"


class _Table(dict):
    """A table for `str.translate` that computes a character's entry on first use."""

    def __init__(self, entry: Callable[[str], str]):
        super().__init__()
        self._entry = entry

    def __missing__(self, code: int) -> str:
        self[code] = self._entry(chr(code))
        return self[code]


def _spelling(character: str) -> str:
    kind = unicodedata.decomposition(character).partition(" ")[0]
    compatible = unicodedata.normalize("NFKC", character)
    if character in _SPELT:
        return _SPELT[character]
    if unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f":
        # Invisible: joiners, marks of direction, variants of emoji.
        return ""
    if unicodedata.category(character) == "Nd":
        return str(unicodedata.decimal(character))
    if kind == "<super>":
        return f"^{compatible}"
    if kind == "<fraction>":
        return f" {compatible.replace('⁄', '/')}"
    return character


def _meaning(character: str) -> str:
    category = unicodedata.category(character)
    if character == "'":
        return ""
    noise = category[0] == "P" and character not in _KEPT or category in ("Cc", "Cs")
    return " " if noise else character


_SPELLING, _CHARACTERS = _Table(_spelling), _Table(_meaning)
