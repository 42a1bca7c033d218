"""Rewards for the chain of thought, by exact rules; both are ours."""

import re

from sari_jax.data.answers import choice_index, normalise
from sari_jax.data.records import Record
from sari_jax.data.styles import Style

# A run of this many words that stood before is a copy; fewer may well come twice. A section with this many words of its
# own is no copy, whatever else it repeats.
RUN = 5


def sections_reward(completion: str, record: Record, style: Style) -> float:
    """Returns the fraction of the style's sections that are there, hold a word, and are no copy.

        reward = good sections / sections of the style

    A section is a copy if it equals the question or an earlier section. It is also one if it repeats runs of five words
    or more of theirs and has fewer than five words besides.

    >>> from sari_jax.data.records import Clip
    >>> from sari_jax.data.styles import STYLES
    >>> record = Record(
    ...     id="r1", audio=(Clip("dog.wav"),), question="Which animal?", choices=("cat", "dog"),
    ...     answer_index=1, task="sound", source="mine", licence="CC0-1.0",
    ... )
    >>> chain = (
    ...     "<planning>Which animal?</planning><caption>Two barks.</caption>"
    ...     "<reasoning>Dogs bark.</reasoning><summary>It is a dog.</summary>"
    ... )
    >>> sections_reward(f"<think>{chain}</think>", record, STYLES["structured"])
    0.75

    Args:
        completion: the text.
        record: the question.
        style: the answer style, which names the sections and finds them.

    Returns:
        The reward, from 0 to 1; 1 for a style without sections.
    """
    names = section_names(style)
    found = style.sections(completion)
    said = [_words(record.question)]
    good = 0
    for name in names:
        words = _words(found.get(name, ""))
        good += bool(words.strip()) and not _copied(words, said)
        said.append(words)
    return good / len(names) if names else 1.0


def consistency_reward(completion: str, record: Record, style: Style) -> float:
    """Returns 1 if the chain concludes what the answer says, else 0.

    The last choice that the chain's last section names must be the choice that the answer names.

    >>> from sari_jax.data.records import Clip
    >>> from sari_jax.data.styles import STYLES
    >>> record = Record(
    ...     id="r1", audio=(Clip("dog.wav"),), question="Which animal?", choices=("cat", "dog"),
    ...     answer_index=1, task="sound", source="mine", licence="CC0-1.0",
    ... )
    >>> text = "<think>Not a cat but a dog.</think><answer>{}</answer>"
    >>> [consistency_reward(text.format(said), record, STYLES["free"]) for said in ("dog", "cat")]
    [1.0, 0.0]

    Args:
        completion: the text.
        record: the question, whose choices count; the right one does not matter.
        style: the answer style, which finds the last section and the answer.

    Returns:
        1.0 or 0.0; 1.0 for a style without a chain.
    """
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
    """Returns the choice that the text names last, as whole words; of two that end there, the longer one.

    >>> last_choice("Not a bark but a dog barking", ("bark", "dog", "dog barking"))
    'dog barking'

    Returns:
        The normalised choice; None if the text names none.
    """
    words = _words(text)
    named = []
    for choice in {normalise(choice) for choice in choices} - {""}:
        places = re.finditer(f"(?= {re.escape(choice)} )", words)
        named += [(place.start() + len(choice), len(choice), choice) for place in places]
    # A choice within the mention of another, longer choice is not mentioned.
    apart = [
        (end, size, choice)
        for end, size, choice in named
        if not any(e >= end and e - s <= end - size and s > size for e, s, _ in named)
    ]
    return max(apart)[-1] if apart else None


def section_names(style: Style) -> tuple[str, ...]:
    """Returns the names of the style's sections, as `Style.sections` has them.

    >>> from sari_jax.data.styles import STYLES
    >>> section_names(STYLES["structured"]), section_names(STYLES["free"])
    (('planning', 'caption', 'reasoning', 'summary'), ('think',))
    """
    if style.section_tags:
        return tuple(name for name, _ in style.section_tags)
    return ("think",) if style.think_tag is not None else ()


def _words(text: str) -> str:
    """Returns the normalised text with a space on either side, so that whole words can be looked for."""
    return f" {normalise(text)} "


def _copied(words: str, said: list[str]) -> bool:
    """Whether these words equal one of the earlier texts, or have fewer than RUN words besides runs of theirs."""
    listed = words.split()
    own = set(range(len(listed)))
    for start in range(len(listed) - RUN + 1):
        run = f" {' '.join(listed[start : start + RUN])} "
        if any(run in other for other in said):
            own -= set(range(start, start + RUN))
    return words in said or len(own) < min(RUN, len(listed))
