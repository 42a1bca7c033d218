"""The questions without their sound: true to what will be heard, and silent about the answer."""

import types
from collections import Counter, defaultdict

import numpy as np
import pytest
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

from sari_jax.data.sources.starter.questions import DIFFICULTIES, KINDS, LOUDNESS, NUMBERS, texts

LEVELS = list(DIFFICULTIES)


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
            assert code[:2] == {"English": "en", "French": "fr", "German": "de", "Spanish": "es"}[draft.answer]


def test_loudness_is_what_it_is_called():
    assert sorted(LOUDNESS["louder"]) == list(LOUDNESS["louder"])
    assert LOUDNESS["softer"] == LOUDNESS["louder"][::-1]
    assert len(set(LOUDNESS["constant"])) == 1
    start, *middle, end = LOUDNESS["soft in the middle"]
    assert max(middle) < min(start, end)


def test_tokenizer_texts_hold_every_word_of_the_questions(many):
    known = {word for text in texts(count=1200) for word in text.split()}
    asked = {word for draft in many for word in (*draft.question.split(), *" ".join(draft.choices).split())}
    assert asked <= known
    assert list(texts(count=24, seed=1)) == list(texts(count=24, seed=1))
    assert list(texts(count=24, seed=1)) != list(texts(count=24, seed=2))


def features(draft, place: int) -> dict[str, float]:
    """All that the text of a question says about one of its choices."""
    choice, others = draft.choices[place], [c for i, c in enumerate(draft.choices) if i != place]
    many = len(draft.choices)
    asked = [f"{draft.kind}", *(f"asked {word}" for word in draft.question.split())]
    about = [f"choice {choice}", f"place {place} of {many}", *(f"beside {other}" for other in others)]
    return dict.fromkeys([*about, *(f"{a} & {b}" for a in asked for b in about[:2])], 1.0)


def text_only_accuracy(train: list, test: list) -> float:
    """How often a classifier that has never heard anything picks the answer."""
    vectorizer = DictVectorizer()
    pairs = [(features(d, i), choice == d.answer) for d in train for i, choice in enumerate(d.choices)]
    model = LogisticRegression(C=0.3, max_iter=200)
    model.fit(vectorizer.fit_transform([f for f, _ in pairs]), [right for _, right in pairs])
    rows = vectorizer.transform([features(d, i) for d in test for i in range(len(d.choices))])
    scores = iter(model.decision_function(rows))
    guesses = [d.choices[int(np.argmax([next(scores) for _ in d.choices]))] for d in test]
    return float(np.mean([guess == d.answer for guess, d in zip(guesses, test, strict=True)]))


def test_the_text_alone_says_nothing_about_the_answer():
    train, test = drafts(1, 2400), drafts(2, 2400)
    chances = np.array([1 / len(draft.choices) for draft in test])
    error = np.sqrt((chances * (1 - chances)).sum()) / len(test)
    assert abs(text_only_accuracy(train, test) - chances.mean()) < 3 * error


def test_that_classifier_would_find_a_leak():
    """One question in five that has its answer first is enough for it."""
    rng = np.random.default_rng(3)

    def leaking(seed: int) -> list:
        def leak(draft):
            others = [choice for choice in draft.choices if choice != draft.answer]
            return types.SimpleNamespace(
                kind=draft.kind, question=draft.question, answer=draft.answer, choices=(draft.answer, *others)
            )

        return [leak(draft) if rng.random() < 0.2 else draft for draft in drafts(seed, 1800)]

    test = leaking(5)
    chances = np.array([1 / len(draft.choices) for draft in test])
    error = np.sqrt((chances * (1 - chances)).sum()) / len(test)
    assert text_only_accuracy(leaking(4), test) > chances.mean() + 3 * error
