"""Can the right choice be told from the text alone? A small model tries.

What it finds, a model in training finds too, and learns instead of listening.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sari_jax.corpus.clean.texts import plain_text
from sari_jax.data.records import Record

FOLDS = 5
MARGIN = 0.05  # above chance: less is no shortcut worth a model's while
LEAST = 50  # records, under which nothing can be said
WORDS = 12  # of a question that are crossed with those of a choice
VARIED = 0.2  # questions per record, from which on folds share no question


def probe(records: Sequence[Record], *, seed: int = 0) -> dict[str, Any]:
    """How often a logistic model on words, lengths and places picks the right choice of questions it has not seen.

    Folds share no question text where texts are many. Where a few are asked about many sounds, they have to share
    them; what is measured then is whether a question's usual answer gives it away.

    Returns:
        {"accuracy", "chance", "interval": 95 % (Wilson), "verdict": "leak", "slight", "none" or "too few", "rows",
        "folds": by "question" or by "row", "cues": accuracy of always taking the longest, the shortest, a position}
    """
    # Imported here: a second that the other commands need not wait for.
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.linear_model import SGDClassifier

    chance = float(np.mean([1 / len(record.choices) for record in records])) if records else 0.0
    if len(records) < LEAST:
        return {"verdict": "too few", "rows": len(records), "chance": chance}
    questions = [plain_text(record.question) for record in records]
    generator = np.random.default_rng(seed)
    by_question = len(set(questions)) >= VARIED * len(questions)
    names = questions if by_question else [str(row) for row in range(len(records))]
    fold_of = dict(
        zip(sorted(set(names)), generator.permutation(len(set(names))) % FOLDS, strict=True)
    )
    folds = np.array([fold_of[name] for name in names])

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


def wilson(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a fraction (Wilson 1927)."""
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
