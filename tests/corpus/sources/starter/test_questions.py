"""The questions without their sound: true to what will be heard, and silent about the answer."""

import dataclasses
import types
from collections import Counter, defaultdict

import numpy as np
import pytest
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

from sari_jax.corpus.sources.starter.build import WEIGHTS
from sari_jax.corpus.sources.starter.material import SPLITS
from sari_jax.corpus.sources.starter.questions import DIFFICULTIES, KINDS, LOUDNESS, NUMBERS, texts
from sari_jax.data.records import read_records

LEVELS = list(DIFFICULTIES)
ALL_KINDS = {kind(np.random.default_rng(0), "easy").kind for kind in KINDS}


def drafts(seed: int, count: int) -> list:
    rng = np.random.default_rng(seed)
    return [KINDS[i % len(KINDS)](rng, LEVELS[i // len(KINDS) % len(LEVELS)]) for i in range(count)]


@pytest.fixture(scope="module")
def many():
    return drafts(0, 2400)


def test_every_kind_has_as_many_choices_as_its_difficulty_says(many):
    assert len({draft.kind for draft in many}) == len(KINDS)
    assert Counter(draft.task for draft in many) == {"music": 800, "sound": 800, "speech": 800}
    for draft in many:
        assert len(draft.choices) == len(set(draft.choices)) == DIFFICULTIES[draft.difficulty]
        assert draft.answer in draft.choices


def test_chains_are_short_and_end_with_the_answer(many):
    for draft in many:
        planning, caption, reasoning, summary = draft.chain
        assert all(part.endswith(".") and 2 <= len(part.split()) <= 9 for part in draft.chain)
        assert draft.answer in summary
        assert 4 <= len(draft.free.split()) <= 20


def test_planning_knows_the_question_only(many):
    plans = defaultdict(set)
    for draft in many:
        plans[draft.question].add(draft.chain[0])
    assert all(len(found) == 1 for found in plans.values())


class Heard:
    """Stands in for the material: a sound is its description."""

    sources = types.SimpleNamespace(soundfont="font")

    def instrument(self, family, key, seconds, variant):
        return (family, key)

    def effect(self, name, variant):
        return name, "font"

    def event(self, variant):
        return variant, "font"

    def word(self, word, variant):
        return word, "voice"

    def phrase(self, text, language, variant):
        return (text, language), "voice"


def heard(draft) -> list:
    return [sound for sound, _ in draft.sounds(Heard())]


def names(draft) -> list:
    """What is heard, in order, each once."""
    return list(dict.fromkeys(s[0] if isinstance(s, tuple) else s for s in heard(draft)))


def test_what_is_said_is_what_is_heard(many):
    for draft in many:
        caption = draft.chain[1]
        if draft.kind.endswith("_count"):
            assert len(heard(draft)) == NUMBERS.index(draft.answer)
            assert caption.count(",") + 1 == NUMBERS.index(draft.answer)
        elif draft.kind.endswith("order"):
            first, last = names(draft)
            assert caption == f"First {first}, then {last}."
            assert draft.answer == (first if "first" in draft.question else last)
        elif draft.kind in ("instrument", "effect", "word"):
            assert names(draft) == [draft.answer]
            assert draft.answer in caption
        elif draft.kind == "loudness":
            assert draft.gains == LOUDNESS[draft.answer] and len(draft.gains) == len(heard(draft))
        elif draft.kind == "contour":
            keys = [key for _, key in heard(draft)]
            steps = np.sign(np.diff(keys)).tolist()
            assert steps == {
                "rising": [1] * 4, "falling": [-1] * 4, "steady": [0] * 4, "up and down": [1, 1, -1, -1]
            }[draft.answer]  # fmt: skip
            assert 50 <= min(keys) and max(keys) <= 85
        else:
            assert draft.kind == "language"
            ((_, code),) = heard(draft)
            assert (
                code[:2]
                == {"English": "en", "French": "fr", "German": "de", "Spanish": "es"}[draft.answer]
            )


def test_loudness_is_what_it_is_called():
    assert sorted(LOUDNESS["louder"]) == list(LOUDNESS["louder"])
    assert LOUDNESS["softer"] == LOUDNESS["louder"][::-1]
    assert len(set(LOUDNESS["constant"])) == 1
    start, *middle, end = LOUDNESS["soft in the middle"]
    assert max(middle) < min(start, end)


def test_tokenizer_texts_hold_every_word_of_the_questions(many):
    known = {word for text in texts(count=1200) for word in text.split()}
    asked = {
        word
        for draft in many
        for word in (*draft.question.split(), *" ".join(draft.choices).split())
    }
    assert asked <= known
    assert list(texts(count=24, seed=1)) == list(texts(count=24, seed=1))
    assert list(texts(count=24, seed=1)) != list(texts(count=24, seed=2))


def as_built(split: str, size: int) -> list:
    """The drafts of a corpus of seed 0."""
    number, made = list(SPLITS).index(split), []
    for i in range(size):
        rng = np.random.default_rng([0, number, i])
        made.append(
            KINDS[i % len(KINDS)](rng, str(rng.choice(list(WEIGHTS), p=list(WEIGHTS.values()))))
        )
    return made


@pytest.mark.parametrize("split", ["train", "test"])
def test_they_are_the_drafts_of_the_corpus(starter_dir, split):
    records = read_records(starter_dir / f"{split}.jsonl")
    for record, draft in zip(records, as_built(split, len(records)), strict=True):
        assert (record.question, record.choices, record.kind) == (
            draft.question,
            draft.choices,
            draft.kind,
        )
        assert (record.difficulty, record.choices[record.answer_index]) == (
            draft.difficulty,
            draft.answer,
        )


def features(draft, place: int) -> dict[str, float]:
    """All that the text of a question says about one of its choices."""
    choice, others = draft.choices[place], [c for i, c in enumerate(draft.choices) if i != place]
    asked = [draft.kind, *(f"asked {word}" for word in draft.question.split())]
    about = [f"choice {choice}", f"place {place} of {len(draft.choices)}"]
    pairs = [f"{choice} beside {other}" for other in others]
    return dict.fromkeys([*about, *pairs, *(f"{a} & {b}" for a in asked for b in about)], 1.0)


def text_only_excess(train: list, test: list) -> dict[str, float]:
    """What a classifier that has never heard anything guesses above chance, in standard errors: of a kind, of all."""
    vectorizer = DictVectorizer()
    pairs = [
        (features(d, i), choice == d.answer) for d in train for i, choice in enumerate(d.choices)
    ]
    model = LogisticRegression(C=0.3, max_iter=200)
    model.fit(vectorizer.fit_transform([f for f, _ in pairs]), [right for _, right in pairs])
    rows = vectorizer.transform([features(d, i) for d in test for i in range(len(d.choices))])
    scores = iter(model.decision_function(rows))
    right = np.array(
        [d.answer == d.choices[int(np.argmax([next(scores) for _ in d.choices]))] for d in test]
    )
    chance, kinds = np.array([1 / len(d.choices) for d in test]), np.array([d.kind for d in test])

    def excess(of: np.ndarray) -> float:
        return float(
            (right[of] - chance[of]).sum() / np.sqrt((chance[of] * (1 - chance[of])).sum())
        )

    return {kind: excess(kinds == kind) for kind in sorted(set(kinds))} | {
        "all": excess(kinds == kinds)
    }


@pytest.mark.tools
def test_the_text_alone_says_nothing_about_the_answer():
    found = text_only_excess(as_built("train", 4200), as_built("test", 600))
    assert max(found.values()) < 3, found


@pytest.mark.numerics
@pytest.mark.parametrize(
    ("leaky", "part", "where"),
    [({"loudness"}, 1.0, "loudness"), (ALL_KINDS, 0.2, "all")],
    ids=["a kind", "a part"],
)
def test_that_classifier_finds_a_leak(leaky, part, where):
    """The answer always first in one kind, or in one question of five everywhere."""
    rng = np.random.default_rng(3)

    def leak(draft):
        if draft.kind not in leaky or rng.random() >= part:
            return draft
        others = [choice for choice in draft.choices if choice != draft.answer]
        return dataclasses.replace(draft, choices=(draft.answer, *others))

    found = text_only_excess(
        *([leak(d) for d in as_built(*split)] for split in (("train", 2400), ("test", 600)))
    )
    assert found[where] > 3
    if where != "all":
        assert max(excess for kind, excess in found.items() if kind not in (where, "all")) < 3
