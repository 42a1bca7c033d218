"""The kinds of questions of the starter corpus: question, choices, answer, chain and sounds.

Each kind draws its choices first, then the answer evenly among them, then everything else to fit.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from sari_jax.corpus.sources.starter.material import EFFECTS, INSTRUMENTS, PHRASES, WORDS, Material

NUMBERS = ("zero", "one", "two", "three", "four", "five")
# Difficulty -> number of choices.
DIFFICULTIES = {"easy": 2, "medium": 3, "hard": 4}
Sound = tuple[np.ndarray, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """A question whose clip is still to be made.

    Attributes:
        chain: the sections of a structured chain: planning, caption, reasoning and summary.
        free: a chain of thought without sections.
        sounds: makes from a material the sounds in order, each with the name of its source.
        gap: seconds of silence between the sounds.
        gains: the loudness of each sound; 1 without it.
    """

    kind: str
    task: str
    question: str
    choices: tuple[str, ...]
    answer: str
    difficulty: str
    chain: tuple[str, str, str, str]
    free: str
    sounds: Callable[[Material], list[Sound]]
    gap: float = 0.12
    gains: tuple[float, ...] = ()


Item = TypeVar("Item")
Rng = np.random.Generator
Kind = Callable[[Rng, str], Draft]


def _one(rng: Rng, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]


def _some(rng: Rng, items: Sequence[Item], count: int) -> list[Item]:
    return [items[i] for i in rng.permutation(len(items))[:count]]


def _variant(rng: Rng) -> int:
    return int(rng.integers(1000))


def instrument(rng: Rng, difficulty: str) -> Draft:
    choices = _some(rng, list(INSTRUMENTS), DIFFICULTIES[difficulty])
    answer, variant, root = _one(rng, choices), _variant(rng), int(rng.integers(55, 70))
    steps = [0, *rng.choice([-5, -3, 2, 4, 7], size=2)]
    return Draft(
        kind="instrument",
        task="music",
        question=_one(rng, ("Which instrument plays?", "What instrument do you hear?")),
        choices=tuple(choices),
        answer=answer,
        difficulty=difficulty,
        chain=(
            "Name the instrument.",
            f"A {answer} plays a phrase.",
            f"The tone is {answer}.",
            f"It is {answer}.",
        ),
        free=f"I hear the tone of {answer} in this phrase, so it is {answer}.",
        sounds=lambda m: [
            (m.instrument(answer, int(root + step), 0.45, variant), m.sources.soundfont)
            for step in steps
        ],
        gap=0.02,
    )


def first_instrument(rng: Rng, difficulty: str) -> Draft:
    choices = _some(rng, list(INSTRUMENTS), DIFFICULTIES[difficulty])
    answer, variant, root = _one(rng, choices), _variant(rng), int(rng.integers(55, 70))
    order, where = _order(rng, choices, answer)
    return Draft(
        kind="instrument_order",
        task="music",
        question=_one(rng, (f"Which instrument plays {where}?", f"What instrument comes {where}?")),
        choices=tuple(choices),
        answer=answer,
        difficulty=difficulty,
        chain=_chain_of_order("instrument", order, where, answer),
        free=f"I hear {order[0]} and then {order[1]}, so the {where} is {answer}.",
        sounds=lambda m: [
            (m.instrument(family, root + step, 0.45, variant), m.sources.soundfont)
            for family in order
            for step in (0, 4)
        ],
        gap=0.02,
    )


def _order(rng: Rng, choices: Sequence[str], answer: str) -> tuple[tuple[str, str], str]:
    """Draws another choice and the order of the two; returns the order, and whether the answer is first or last."""
    other = _one(rng, [choice for choice in choices if choice != answer])
    first = bool(rng.integers(2))
    return (answer, other) if first else (other, answer), "first" if first else "last"


def _chain_of_order(
    thing: str, order: tuple[str, str], where: str, answer: str
) -> tuple[str, str, str, str]:
    return (
        f"Find the {where} {thing}.",
        f"First {order[0]}, then {order[1]}.",
        f"The {where} is {answer}.",
        f"It is {answer}.",
    )


# Shape -> direction of a step (2: up and down again), where the notes go, what the next one is.
CONTOURS = {
    "rising": (1, "up", "higher"),
    "falling": (-1, "down", "lower"),
    "steady": (0, "nowhere", "the same"),
    "up and down": (2, "up and down", "first higher then lower"),
}


def contour(rng: Rng, difficulty: str) -> Draft:
    choices = _some(rng, list(CONTOURS), DIFFICULTIES[difficulty])
    answer, variant = _one(rng, choices), _variant(rng)
    direction, way, next_note = CONTOURS[answer]
    step = {"easy": 7, "medium": 5, "hard": 4}[difficulty]
    climb = (0, 1, 2, 1, 0) if direction == 2 else tuple(direction * i for i in range(5))
    # The lowest note is anywhere between keys 50 and 85 where the rest fits, so that the first note gives little away.
    lowest = int(rng.integers(50, 86 - step * (max(climb) - min(climb))))
    keys = [lowest + step * (i - min(climb)) for i in climb]
    family = _one(rng, ("piano", "flute", "organ", "trumpet"))
    return Draft(
        kind="contour",
        task="music",
        question=_one(rng, ("How does the melody move?", "Which way do the notes go?")),
        choices=tuple(choices),
        answer=answer,
        difficulty=difficulty,
        chain=(
            "Follow the pitch.",
            f"The notes go {way}.",
            f"Each next note is {next_note}.",
            f"It is {answer}.",
        ),
        free=f"The notes go {way}, each next one is {next_note}, so it is {answer}.",
        sounds=lambda m: [
            (m.instrument(family, key, 0.35, variant), m.sources.soundfont) for key in keys
        ],
        gap=0.02,
    )


def _count(
    rng: Rng,
    difficulty: str,
    *,
    kind: str,
    task: str,
    thing: str,
    questions: tuple[str, ...],
    sounds: Callable[[Material, int], list[Sound]],
    gap: float,
    most: int = 5,
) -> Draft:
    counts = sorted(_some(rng, range(1, most + 1), DIFFICULTIES[difficulty]))
    count = int(_one(rng, counts))
    answer, counted = NUMBERS[count], ", ".join(NUMBERS[1 : count + 1])
    plural = thing if count == 1 else f"{thing}s"
    return Draft(
        kind=kind,
        task=task,
        question=_one(rng, questions),
        choices=tuple(NUMBERS[c] for c in counts),
        answer=answer,
        difficulty=difficulty,
        chain=(
            f"Count the {thing}s.",
            f"I hear {counted}.",
            f"That makes {answer} {plural}.",
            f"It is {answer}.",
        ),
        free=f"I count {counted}, which makes {answer} {plural}.",
        sounds=lambda m: sounds(m, count),
        gap=gap,
    )


def note_count(rng: Rng, difficulty: str) -> Draft:
    variant, family = _variant(rng), _one(rng, list(INSTRUMENTS))
    keys = [int(key) for key in rng.integers(55, 75, size=5)]
    return _count(
        rng,
        difficulty,
        kind="note_count",
        task="music",
        thing="note",
        questions=("How many notes are played?", "How many notes do you hear?"),
        sounds=lambda m, n: [
            (m.instrument(family, key, 0.35, variant), m.sources.soundfont) for key in keys[:n]
        ],
        gap=0.18,
    )


def event_count(rng: Rng, difficulty: str) -> Draft:
    variant = _variant(rng)
    return _count(
        rng,
        difficulty,
        kind="event_count",
        task="sound",
        thing="sound",
        questions=("How many times is the sound heard?", "How often does the sound come?"),
        sounds=lambda m, n: [m.event(variant)] * n,
        gap=0.18,
    )


def word_count(rng: Rng, difficulty: str) -> Draft:
    variant, words = _variant(rng), _some(rng, WORDS, 5)
    return _count(
        rng,
        difficulty,
        kind="word_count",
        task="speech",
        thing="word",
        questions=("How many words are spoken?", "How many words does the speaker say?"),
        sounds=lambda m, n: [m.word(word, variant) for word in words[:n]],
        gap=0.15,
        most=4,
    )


def effect(rng: Rng, difficulty: str) -> Draft:
    choices = _some(rng, list(EFFECTS), DIFFICULTIES[difficulty])
    answer, variant, times = _one(rng, choices), _variant(rng), 1 + int(rng.integers(2))
    return Draft(
        kind="effect",
        task="sound",
        question=_one(rng, ("What sound is this?", "Which sound do you hear?")),
        choices=tuple(choices),
        answer=answer,
        difficulty=difficulty,
        chain=(
            "Name the sound.",
            f"There is the sound of {answer}.",
            f"It matches {answer}.",
            f"It is {answer}.",
        ),
        free=f"I hear the sound of {answer}, so it is {answer}.",
        sounds=lambda m: [m.effect(answer, variant)] * times,
    )


def effect_order(rng: Rng, difficulty: str) -> Draft:
    choices = _some(rng, list(EFFECTS), DIFFICULTIES[difficulty])
    answer, variant = _one(rng, choices), _variant(rng)
    order, where = _order(rng, choices, answer)
    return Draft(
        kind="effect_order",
        task="sound",
        question=_one(rng, (f"Which sound comes {where}?", f"What is heard {where}?")),
        choices=tuple(choices),
        answer=answer,
        difficulty=difficulty,
        chain=_chain_of_order("sound", order, where, answer),
        free=f"I hear {order[0]} and then {order[1]}, so the {where} is {answer}.",
        sounds=lambda m: [m.effect(name, variant) for name in order],
        gap=0.2,
    )


# Change -> the loudness of each of four events.
LOUDNESS = {
    "louder": (0.08, 0.2, 0.45, 1.0),
    "softer": (1.0, 0.45, 0.2, 0.08),
    "constant": (0.6, 0.6, 0.6, 0.6),
    "soft in the middle": (1.0, 0.12, 0.12, 1.0),
}


def loudness(rng: Rng, difficulty: str) -> Draft:
    choices = _some(rng, list(LOUDNESS), DIFFICULTIES[difficulty])
    answer, variant = _one(rng, choices), _variant(rng)
    return Draft(
        kind="loudness",
        task="sound",
        question=_one(rng, ("How does the loudness change?", "What happens to the volume?")),
        choices=tuple(choices),
        answer=answer,
        difficulty=difficulty,
        chain=(
            "Follow the loudness.",
            f"The sounds are {answer}.",
            f"The volume is {answer}.",
            f"It is {answer}.",
        ),
        free=f"I hear that the sounds are {answer}, so the volume is {answer}.",
        sounds=lambda m: [m.event(variant)] * 4,
        gap=0.2,
        gains=LOUDNESS[answer],
    )


def word(rng: Rng, difficulty: str) -> Draft:
    choices = _some(rng, WORDS, DIFFICULTIES[difficulty])
    answer, variant = _one(rng, choices), _variant(rng)
    return Draft(
        kind="word",
        task="speech",
        question=_one(rng, ("Which word is spoken?", "What does the speaker say?")),
        choices=tuple(choices),
        answer=answer,
        difficulty=difficulty,
        chain=(
            "Listen for the word.",
            f"The speaker says {answer}.",
            f"The word is {answer}.",
            f"It is {answer}.",
        ),
        free=f"The speaker says {answer}, so the word is {answer}.",
        sounds=lambda m: [m.word(answer, variant)],
    )


def word_order(rng: Rng, difficulty: str) -> Draft:
    choices = _some(rng, WORDS, DIFFICULTIES[difficulty])
    answer, variant = _one(rng, choices), _variant(rng)
    order, where = _order(rng, choices, answer)
    return Draft(
        kind="word_order",
        task="speech",
        question=_one(rng, (f"Which word is spoken {where}?", f"What is the {where} word?")),
        choices=tuple(choices),
        answer=answer,
        difficulty=difficulty,
        chain=_chain_of_order("word", order, where, answer),
        free=f"I hear {order[0]} and then {order[1]}, so the {where} is {answer}.",
        sounds=lambda m: [m.word(each, variant) for each in order],
        gap=0.2,
    )


def language(rng: Rng, difficulty: str) -> Draft:
    choices = _some(rng, list(PHRASES), DIFFICULTIES[difficulty])
    answer, variant = _one(rng, choices), _variant(rng)
    code, phrases = PHRASES[answer]
    phrase = _one(rng, phrases)
    return Draft(
        kind="language",
        task="speech",
        question=_one(rng, ("Which language is spoken?", "What language does the speaker use?")),
        choices=tuple(choices),
        answer=answer,
        difficulty=difficulty,
        chain=(
            "Name the language.",
            f"The speaker talks in {answer}.",
            f"The words are {answer}.",
            f"It is {answer}.",
        ),
        free=f"The speaker talks in {answer}, so it is {answer}.",
        sounds=lambda m: [m.phrase(phrase, code, variant)],
    )


# In the order of the corpus: question i is of kind i modulo 12.
KINDS: tuple[Kind, ...] = (
    instrument,
    first_instrument,
    contour,
    note_count,
    effect,
    effect_order,
    loudness,
    event_count,
    word,
    word_order,
    word_count,
    language,
)


def texts(count: int = 2400, seed: int = 0) -> Iterator[str]:
    """Yields questions with choices and chains, without audio, to train a small tokenizer on."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        draft = KINDS[i % len(KINDS)](rng, _one(rng, list(DIFFICULTIES)))
        yield " ".join((draft.question, *draft.choices, *draft.chain, draft.free))
