"""A probe for text-only shortcuts: a small model guesses the right choice from the text alone.

A model in training finds the same shortcuts, and learns them instead of listening.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from sari_jax.corpus.clean.texts import plain_text
from sari_jax.data.records import Record

FOLDS = 5
# Above chance. Less is no shortcut worth a model's while.
MARGIN = 0.05
# Records. With fewer there is no verdict.
LEAST = 50
# Words of a question that are crossed with those of a choice.
WORDS = 12
# Distinct questions per record. From this share on, folds share no question.
VARIED = 0.2


def probe(records: Sequence[Record], *, seed: int = 0) -> dict[str, Any]:
    """Measures how often a logistic model on words, lengths and positions picks the right choice of unseen questions.

    Folds share no question text where there are many texts. Where few texts are asked about many sounds, folds have to
    share them; then the accuracy shows whether a question's usual answer gives it away.

    Returns:
        {"accuracy", "chance", "interval": 95 % (Wilson), "verdict": "leak", "slight", "none" or "too few", "rows",
        "folds": by "question" or by "row", "cues": accuracy of always taking the longest, the shortest, a position}
    """
    chance = float(np.mean([1 / len(record.choices) for record in records])) if records else 0.0
    if len(records) < LEAST:
        return {"verdict": "too few", "rows": len(records), "chance": chance}
    questions = [plain_text(record.question) for record in records]
    by_question = len(set(questions)) >= VARIED * len(questions)
    names = questions if by_question else [str(row) for row in range(len(records))]
    hits = _cross_validate(records, questions, _folds(names, seed), seed)
    low, high = wilson(int(hits.sum()), len(hits))
    verdict = "leak" if low > chance + MARGIN else "slight" if low > chance else "none"
    return {
        "accuracy": round(float(hits.mean()), 4),
        "chance": round(chance, 4),
        "interval": [round(low, 4), round(high, 4)],
        "verdict": verdict,
        "rows": len(records),
        "folds": "question" if by_question else "row",
        "cues": _cues(records),
    }


def _folds(names: Sequence[str], seed: int) -> Int[np.ndarray, "N"]:
    """Draws a fold for each name; equal names share a fold."""
    distinct = sorted(set(names))
    drawn = np.random.default_rng(seed).permutation(len(distinct)) % FOLDS
    fold_of = dict(zip(distinct, drawn, strict=True))
    return np.array([fold_of[name] for name in names])


def _cross_validate(
    records: Sequence[Record], questions: Sequence[str], folds: Int[np.ndarray, "N"], seed: int
) -> Bool[np.ndarray, "N"]:
    """Trains on all folds but one, in turn; returns whether the right choice of each record had the highest score."""
    # Imported here: it takes a second that the other commands need not wait for.
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.linear_model import SGDClassifier

    sizes = np.array([len(record.choices) for record in records])
    starts = np.cumsum(sizes) - sizes
    owner = np.repeat(np.arange(len(records)), sizes)
    hasher = FeatureHasher(n_features=2**18, input_type="pair", dtype=np.float32)
    features = hasher.transform(
        _features(record, question, place)
        for record, question in zip(records, questions, strict=True)
        for place in range(len(record.choices))
    )
    right = np.zeros(len(owner), bool)
    right[starts + [record.answer_index for record in records]] = True
    hits = np.zeros(len(records), bool)
    for fold in range(FOLDS):
        held = folds[owner] == fold
        if not held.any() or held.all():
            continue
        model = SGDClassifier(
            loss="log_loss", alpha=1e-5, max_iter=8, tol=None, random_state=seed, average=True
        )
        model.fit(features[~held], right[~held])
        scores = np.full(len(owner), -np.inf)
        scores[held] = model.decision_function(features[held])
        for row in np.flatnonzero(folds == fold):
            part = scores[starts[row] : starts[row] + sizes[row]]
            hits[row] = part.argmax() == records[row].answer_index
    return hits


def wilson(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Returns the confidence interval of the fraction hits / total (Wilson 1927)."""
    share = hits / total
    centre = share + z * z / (2 * total)
    spread = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return tuple(float((centre + side * spread) / (1 + z * z / total)) for side in (-1, 1))


def _features(record: Record, question: str, place: int) -> list[tuple[str, float]]:
    choice = record.choices[place]
    lengths = np.array([len(other) for other in record.choices])
    words = dict.fromkeys(plain_text(choice).split()[:WORDS])
    asked = list(dict.fromkeys(question.split()))[:WORDS]
    found = [(f"word {word}", 1.0) for word in words]
    found += [(f"{ask} {word}", 0.3) for ask in asked for word in words]
    found += [
        (f"choice {plain_text(choice)}", 1.0),
        (f"{question} | {plain_text(choice)}", 1.0),
        (f"place {place}", 1.0),
        ("length", float(np.log((1 + lengths[place]) / (1 + lengths.mean())))),
        ("longest", float(lengths[place] == lengths.max() > np.delete(lengths, place).max())),
        ("shortest", float(lengths[place] == lengths.min() < np.delete(lengths, place).min())),
        ("asked", len(words.keys() & set(asked)) / max(1, len(words))),
    ]
    return found


def _cues(records: Sequence[Record]) -> dict[str, float]:
    lengths = [[len(choice) for choice in record.choices] for record in records]
    answers = [record.answer_index for record in records]
    place, count = Counter(answers).most_common(1)[0]
    longest = [int(np.argmax(row)) == right for row, right in zip(lengths, answers, strict=True)]
    shortest = [int(np.argmin(row)) == right for row, right in zip(lengths, answers, strict=True)]
    return {
        "longest": round(float(np.mean(longest)), 4),
        "shortest": round(float(np.mean(shortest)), 4),
        f"position {place}": round(count / len(records), 4),
    }
