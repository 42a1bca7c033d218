"""The rule for which choice an answer names, used for all records (docs/evaluation.md has a table of examples)."""

import re
from collections.abc import Callable, Iterable, Sequence

from sari_jax.data.words import folded, joined, normalise, plain

# A letter or a small number before a text: "(B) dog", "B. dog", "B、dog", "B - dog", "2) dog".
_LABEL = re.compile(
    r"""(?: [(\[（【] \s? (?P<held>[a-zａ-ｚ]|\d{1,2}) \s? [)\]）】] \s? [.:：]?
        | (?P<letter>[a-zａ-ｚ]) (?: \s? [.)\]:：．）] | \s? 、 (?! \s? \w $) | \s [-–—] (?=\s) )
        | (?P<number>\d{1,2}) [.)\]、] (?!\d) )
        \s? (?P<rest>.*)""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
# Further forms of an answer with a letter and a text, which have to agree: "B, dog", "B = dog", "B (dog)", "dog (B)".
# They are not used for choices, since "A, B" may be a choice. As an answer it is two letters.
_LETTER_FIRST = re.compile(
    r"""(?P<letter>[a-zａ-ｚ]) \s? (?: [,，=] (?! \s? [a-zａ-ｚ] $) \s? | (?= [(\[（【]) )
        (?P<text>.+)""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_LETTER_LAST = re.compile(
    r"(?P<text>.+?) \s? [(\[（【] \s? (?P<letter>[a-zａ-ｚ]|\d{1,2}) \s? [)\]）】]",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
# Words before an answer. "option" is removed only before a single letter, since some choices begin with it.
_LEAD = re.compile(
    r"""(?: (?:(?:the|my) \s)? (?:(?:final|correct|right|best) \s)? answer \s? (?: is \b \s? [:：]? | [:：] ) \s?
        | (?:(?:the|my) \s)? (?:(?:final|correct|right|best) \s)? (?:answer|option|choice) \s? (?:is \b)? \s? [:：]? \s?
          (?= \W{0,3} [a-z] \b)
        | I (?: \s would | \s will | ['’]d | ['’]ll )? \s (?:choose|pick|select) \s
          (?: (?:the \s)? (?:option|choice|answer) \s (?= \W{0,3} [a-z] \b) )?
        | (?:正确)? 答案 [是为]? \s? [:：]? \s?
        | 选项? \s? (?= \W{0,3} [a-zａ-ｚ] (?!\w)) )++""",
    re.IGNORECASE | re.VERBOSE,
)
_AROUND = (
    ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), (r"\boxed{", "}"), (r"\text{", "}"),
    (r"\textbf{", "}"), (r"\mathrm{", "}"), (r"\mathbf{", "}"), ("**", "**"), ("*", "*"), ("__", "__"), ("_", "_"),
    ("`", "`"), ('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("«", "»"), ("「", "」"), ("(", ")"), ("[", "]"),
    ("（", "）"), ("【", "】"), ("{", "}"), ("<answer>", "</answer>"), ("<", ">"),
)  # fmt: skip
# Characters around a choice, at most. Accents that are encoded apart from their letters take up to four times the room.
_ROOM = 1000
# Layers that are removed from an answer, at most. This keeps time linear in its length.
_LAYERS = 8
_EXACT: tuple[Callable[[str], str], ...] = (plain, folded)
_FORMS: tuple[Callable[[str], str], ...] = (*_EXACT, normalise, joined)


def choice_index(answer: str, choices: Sequence[str]) -> int | None:
    """Returns the index of the choice that the answer names, or None. If a choice occurs twice, the first one counts.

    An answer names a choice by its whole text, by its letter, or by both if they agree. Texts are compared exactly,
    then without case, then without punctuation and spacing that carry no meaning. The strictest comparison that finds
    a choice decides, so choices that differ only in case or punctuation stay distinct where possible. An answer that
    may mean two choices names none.

    >>> choice_index("C# major", ("C major", "C# major"))
    1
    >>> choice_index("The answer is **B**.", ("dog", "cat"))
    1
    >>> choice_index("(A) cat", ("dog", "cat")) is None
    True
    """
    if len(answer) > _ROOM + 4 * max(map(len, choices), default=0):
        return None
    spellings = _unwrapped(answer)
    found = _same(spellings, choices, _EXACT)
    if not found:
        _, texts, _ = _labelled(choices)
        found = _same(spellings, choices, _FORMS) | _same(spellings, texts, _FORMS)
        found |= _by_label(spellings[-1], choices)
    return min(found) if len({plain(choices[index]) for index in found}) == 1 else None


def is_right(answer: str, choices: Sequence[str], answer_index: int) -> bool:
    """Whether the answer names a choice with the text of the right one, which some records list twice."""
    index = choice_index(answer, choices)
    return index is not None and plain(choices[index]) == plain(choices[answer_index])


def _same(
    spellings: Iterable[str], texts: Sequence[str], forms: Iterable[Callable[[str], str]]
) -> set[int]:
    """Returns the indices of the texts that equal a spelling of the answer, in the strictest form that finds any."""
    for form in forms:
        given = [form(text) for text in texts]
        for spelling in spellings:
            wanted = form(spelling)
            if wanted and wanted in given:
                return {index for index, text in enumerate(given) if text == wanted}
    return set()


def _unwrapped(answer: str) -> list[str]:
    """Returns the answer, and what is left after each removal of words before it or marks around it.

    >>> _unwrapped(r"Answer: $\\boxed{B}$.")
    ['Answer: $\\\\boxed{B}$.', '$\\\\boxed{B}$.', '$\\\\boxed{B}$', '\\\\boxed{B}', 'B']
    """
    spellings = [plain(answer)]
    for _ in range(_LAYERS):
        inner = _inner(spellings[-1])
        if not inner or inner == spellings[-1]:
            break
        spellings.append(inner)
    return spellings


def _inner(text: str) -> str:
    """Removes one layer: words before the answer, marks around it, or a full stop."""
    if lead := _LEAD.match(text):
        return text[lead.end() :]
    for before, after in _AROUND:
        if text.startswith(before) and text.endswith(after) and len(text) > len(before + after):
            return text[len(before) : len(text) - len(after)].strip()
    if text.endswith((".", "。", "．")):
        return text[:-1].rstrip()
    if "**" in text:  # as in "**B**: dog", not in 2**3
        return plain(re.sub(r"\*\*(?!\d)|(?<!\d)\*\*", "", text))
    return re.sub(r"\\([#%&$_{}])", r"\1", text)


def _labelled(choices: Sequence[str]) -> tuple[dict[str, int], list[str], bool]:
    """Returns the label of each choice, the texts without labels, and whether the choices carry labels themselves.

    If all choices carry a letter or number, as in "(b) cat", that is their label. Otherwise the labels are a, b, c, ...
    """
    carried = [match for choice in choices if (match := _LABEL.fullmatch(plain(choice)))]
    if len(carried) == len(choices):
        labels = {_label(match): index for index, match in enumerate(carried)}
        texts = [match["rest"] for match in carried]
        distinct = {normalise(text) for text in texts} - {""}
        if len(labels) == len(distinct) == len(choices):
            return labels, texts, True
    return (
        {chr(ord("a") + place): place for place in range(min(len(choices), 26))},
        [*choices],
        False,
    )


def _label(match: re.Match) -> str:
    return folded(match["held"] or match["letter"] or match["number"])


def _apart(answer: str) -> list[tuple[str, list[str]]]:
    """Returns the readings of an answer with both a letter and a text: the letter, and the spellings of the text.

    >>> _apart("B, dog"), _apart("dog (B)"), _apart("dog")
    ([('b', ['dog'])], [('b', ['dog'])], [])
    """
    if (match := _LABEL.fullmatch(answer)) and match["rest"]:
        return [(_label(match), _unwrapped(match["rest"]))]
    matches = (form.fullmatch(answer) for form in (_LETTER_FIRST, _LETTER_LAST))
    return [(folded(match["letter"]), _unwrapped(match["text"])) for match in matches if match]


def _by_label(answer: str, choices: Sequence[str]) -> set[int]:
    """Returns the indices of the choices that the answer's letter stands for; a text beside it must match the choice.

    A letter that is also a word of another choice names none: with "G major" and "A major", "A" may mean either. It
    counts as a letter if the choices carry letters, or if all of them contain the word, as "a dog" and "a cat" do.
    """
    labels, texts, carried = _labelled(choices)
    if readings := _apart(answer):
        named: set[int] = set()
        for label, text in readings:
            # The letter is the choice's label, or its place if choices carry other labels: "(A) 1. dog".
            place = ord(label) - ord("a") if len(label) == 1 else None
            named |= {labels.get(label)} & _same(text, texts, _FORMS)
            named |= {place} & _same(text, choices, _FORMS)
        return named
    letter = normalise(answer)
    if letter not in labels:
        return set()
    holding = {index for index, text in enumerate(texts) if letter in normalise(text).split()}
    index = labels[letter]
    return {index} if carried or holding in (set(), {index}, set(range(len(texts)))) else set()
