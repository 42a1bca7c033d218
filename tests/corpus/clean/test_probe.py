import time

import numpy as np
import pytest

from sari_jax.corpus.clean.probe import probe, wilson

WORDS = [
    f"{a}{b}" for a in "bdfgklmnprst" for b in ("ark", "ell", "ine", "ord", "ust", "ay", "oon")
]


def corpus(make_record, rows: int, *, leak: str = "", templates: int = 0, seed: int = 0):
    generator, records = np.random.default_rng(seed), []
    for i in range(rows):
        asked = " ".join(generator.choice(WORDS, 6))
        question = f"Which template {i % templates}?" if templates else f"What of {asked}?"
        choices = [" ".join(generator.choice(WORDS, 2)) for _ in range(4)]
        right = int(generator.integers(4))
        if leak == "longest":
            choices[right] += " and more of it"
        if leak == "word" and i % 2:
            choices[right] = f"clearly {choices[right]}"
        if leak == "position":
            right = 0
        records.append(
            make_record(id=str(i), question=question, choices=tuple(choices), answer_index=right)
        )
    return records


@pytest.mark.parametrize("templates", [0, 8])
@pytest.mark.parametrize("leak", ["longest", "word", "position"])
def test_a_planted_leak_is_caught(make_record, leak, templates):
    found = probe(corpus(make_record, 600, leak=leak, templates=templates))
    assert found["verdict"] == "leak" and found["accuracy"] > 0.45
    assert found["folds"] == ("row" if templates else "question")


@pytest.mark.parametrize("templates", [0, 8])
@pytest.mark.parametrize("seed", range(2))
def test_a_clean_corpus_is_not(make_record, seed, templates):
    found = probe(corpus(make_record, 600, templates=templates, seed=seed), seed=seed)
    assert found["verdict"] == "none" and found["chance"] == 0.25
    assert found["interval"][0] <= found["accuracy"] <= found["interval"][1]


def test_the_usual_answer_of_a_template_is_a_leak(make_record):
    generator = np.random.default_rng(0)
    records = [
        make_record(
            question="Is the second tone higher?",
            choices=("yes", "no"),
            answer_index=int(generator.random() < 0.3),
        )
        for _ in range(400)
    ]
    assert probe(records)["verdict"] == "leak"


def test_too_few_records_are_not_probed(make_record):
    assert probe([make_record()])["verdict"] == probe([])["verdict"] == "too few"


def test_wilsons_interval():
    low, high = wilson(50, 100)
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))


def test_time_grows_with_the_rows_only(make_record):
    started = time.perf_counter()
    probe(corpus(make_record, 2_000))
    assert time.perf_counter() - started < 20  # 32,000 in five minutes at the very worst
