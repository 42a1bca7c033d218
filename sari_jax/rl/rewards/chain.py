"""Rewards of what stands before the answer, by exact rules; both are ours."""

import re

from sari_jax.data.answers import choice_index, normalise
from sari_jax.data.records import Record
from sari_jax.data.styles import Style

# So many words in a row are copied; fewer may well come twice. And so many of its own make up for it.
RUN = 5


def sections_reward(completion: str, record: Record, style: Style) -> float:
    """The fraction of the style's sections that are there, hold a word, and are no copy.

    A copy is the question or a section before it, or repeats five words of theirs in a row, or more, and has fewer than
    five besides.
    """
    names = section_names(style)
    found, said, good = style.sections(completion), [_words(record.question)], 0
    for name in names:
        words = _words(found.get(name, ""))
        good += bool(words.strip()) and not _copied(words, said)
        said.append(words)
    return good / len(names) if names else 1.0


def consistency_reward(completion: str, record: Record, style: Style) -> float:
    """1 if the last choice that the chain's last section names is the one that the answer names."""
    names = section_names(style)
    if not names:
        return 1.0
    answer = style.answer(completion)
    index = None if answer is None else choice_index(answer, record.choices)
    conclusion = style.sections(completion).get(names[-1], "")
    return float(
        index is not None
        and last_choice(conclusion, record.choices) == normalise(record.choices[index])
    )


def last_choice(text: str, choices: tuple[str, ...]) -> str | None:
    """The choice, normalised, that the text names last, as whole words; of two that end there, the longer one.

    "Not a bark but a dog barking" names "dog barking" and not "dog".
    """
    words, named = _words(text), []
    for choice in {normalise(choice) for choice in choices} - {""}:
        places = re.finditer(f"(?= {re.escape(choice)} )", words)
        named += [(place.start() + len(choice), len(choice), choice) for place in places]
    # What lies within another choice's mention is no mention.
    apart = [
        (end, size, choice)
        for end, size, choice in named
        if not any(e >= end and e - s <= end - size and s > size for e, s, _ in named)
    ]
    return max(apart)[-1] if apart else None


def section_names(style: Style) -> tuple[str, ...]:
    """The parts of the style's chain as `Style.sections` calls them."""
    if style.section_tags:
        return tuple(name for name, _ in style.section_tags)
    return ("think",) if style.think_tag is not None else ()


def _words(text: str) -> str:
    """Normalised, a space on either side, so that whole words can be looked for."""
    return f" {normalise(text)} "


def _copied(words: str, said: list[str]) -> bool:
    listed = words.split()
    own = set(range(len(listed)))
    for start in range(len(listed) - RUN + 1):
        run = f" {' '.join(listed[start : start + RUN])} "
        if any(run in other for other in said):
            own -= set(range(start, start + RUN))
    return words in said or len(own) < min(RUN, len(listed))
