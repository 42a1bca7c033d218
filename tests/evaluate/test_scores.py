import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from sari_jax.data.styles import STYLES
from sari_jax.errors import InputError
from sari_jax.evaluate.scores import bootstrap_interval, doubts, score_predictions
from sari_jax.rl.rewards.answer import accuracy_reward

MMAU = Path(__file__).parents[3] / "shared" / "data" / "mmau"
SIZES = {"sound": 333, "music": 334, "speech": 333}


@pytest.fixture
def records(make_record):
    tasks = ["sound", "sound", "music", "speech"]
    return [
        make_record(id=f"r{i}", task=task, kind=None if i == 0 else "which", difficulty="easy")
        for i, task in enumerate(tasks)
    ]


def rows(*answers):
    return [{"id": f"r{i}", "model_output": answer} for i, answer in enumerate(answers)]


def test_scores(records):
    scores = score_predictions(records, rows("dog", "cat", "(B) Dog."))
    low, high = scores.pop("interval")
    assert 0 <= low < 0.5 < high <= 1
    for group in scores["by"].values():
        for row in group.values():
            low, high = row.pop("interval")
            assert 0 <= low <= row["accuracy"] <= high <= 1
            assert low < high
    assert scores == {
        "rows": 4,
        "answered": 3,
        "empty": 0,
        "accuracy": {"answered": 2 / 3, "all": 0.5},
        "by": {
            "task": {
                "music": {"accuracy": 1.0, "rows": 1},
                "sound": {"accuracy": 0.5, "rows": 2},
                "speech": {"accuracy": 0.0, "rows": 1},
            },
            "kind": {"which": {"accuracy": 1 / 3, "rows": 3}},
            "difficulty": {"easy": {"accuracy": 0.5, "rows": 4}},
        },
    }
    json.dumps(scores, allow_nan=False)


def test_what_counts_as_answered(records):
    given = [{"id": "r0"}, {"id": "r1", "model_output": None}, {"id": "r2", "model_output": ""}]
    scores = score_predictions(records, given)
    assert scores["answered"] == 1
    assert scores["accuracy"] == {"answered": 0.0, "all": 0.0}
    assert score_predictions(records, [])["accuracy"] == {"answered": None, "all": 0.0}


@pytest.mark.parametrize(
    ("choices", "said", "accuracy"),
    [
        (("C major", "C# major"), "C# major", 0.0),
        (("C major", "C# major"), "C major.", 1.0),
        (("dog", "dog and cat"), "dog and cat", 0.0),
        (("50", "50%"), "50%", 0.0),
        (("की", "कि"), "कि", 0.0),
        (("A. dog", "B. cat"), "A", 1.0),
        (("cat", "dog"), "\\boxed{B}", 0.0),
    ],
)
def test_by_the_rule_of_the_rewards(make_record, choices, said, accuracy):
    record = make_record(id="r0", choices=choices, answer_index=0)
    assert score_predictions([record], rows(said))["accuracy"]["all"] == accuracy
    assert accuracy_reward(f"<answer>{said}</answer>", record, STYLES["direct"]) == accuracy


def test_below_a_share_of_answers_there_is_a_doubt(records):
    assert doubts({"rows": 100, "answered": 95, "empty": 0}) == []
    assert (
        "94 of 100 rows have an answer (6 have none, 0" in doubts({"rows": 100, "answered": 94})[0]
    )
    (doubt,) = doubts(score_predictions(records, rows("dog", "", "dog", "dog")))
    assert "3 of 4 rows have an answer (0 have none, 1 an empty one)" in doubt
    assert "in 2 of 9 rows" in doubts({"rows": 9, "answered": 9, "answer_not_a_choice": 2})[0]


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (
            [{"id": "r9", "model_output": "dog"}],
            "1 ids are not in the benchmark \\(r9 is the first\\)",
        ),
        (rows("dog") * 2, "predictions: id r0 is in 2 rows"),
        ([{"model_output": "dog"}], "row 0 has no id"),
        (["dog"], "row 0 has no id"),
        ({"r0": "dog"}, "give a list of objects with id and model_output"),
        ([{"id": 3}], "row 0 has no id"),
        ([{"id": "r0", "model_output": ["dog"]}], "model_output of r0 is \\['dog'\\]"),
    ],
)
def test_bad_predictions(predictions, message, records):
    with pytest.raises(InputError, match=message):
        score_predictions(records, predictions)


def test_bad_records(records):
    with pytest.raises(InputError, match="no rows"):
        score_predictions([], [])
    with pytest.raises(InputError, match="benchmark: id r0 is in 2 rows"):
        score_predictions([records[0], *records], [])


def test_interval():
    right = np.arange(1_000) < 600
    low, high = bootstrap_interval(right)
    # The normal approximation: 0.6 +- 1.96 sqrt(0.6 * 0.4 / 1000).
    assert low == pytest.approx(0.5696, abs=0.003)
    assert high == pytest.approx(0.6304, abs=0.003)
    assert [low, high] == bootstrap_interval(right)


@pytest.mark.parametrize("rows", [1, 5, 333])
def test_interval_where_all_or_none_are_right(rows):
    """Clopper and Pearson's: the chance of which such a sample still has a probability of 2.5 %."""
    chance = 0.025 ** (1 / rows)
    assert bootstrap_interval(np.ones(rows, bool)) == pytest.approx([chance, 1.0])
    assert bootstrap_interval(np.zeros(rows, bool)) == pytest.approx([0.0, 1 - chance])


def test_interval_is_that_of_resampled_rows():
    right = np.arange(40) < 13
    draws = np.random.default_rng(1).choice(right, (20_000, 40)).mean(axis=1)
    np.testing.assert_allclose(
        bootstrap_interval(right), np.quantile(draws, [0.025, 0.975]), atol=0.026
    )


@pytest.mark.skipif(not MMAU.is_dir(), reason="the MMAU files are not beside the repository")
@pytest.mark.parametrize("version", ["original", "v05.15.25"])
def test_mmau_test_mini(version, make_record):
    """Gold answers are right by our own rule, within a sentence and behind their letter too."""
    items = json.loads((MMAU / f"mmau-test-mini-{version}.json").read_text())
    records = [
        dataclasses.replace(
            make_record(),
            id=item["id"],
            question=item["question"],
            choices=tuple(item["choices"]),
            answer_index=item["choices"].index(item["answer"]),
            task=item["task"],
            difficulty=item["difficulty"],
        )
        for item in items
    ]

    def wrong(text) -> int:
        golds = [
            (record.choices[record.answer_index], "ABCDEFGH"[record.answer_index])
            for record in records
        ]
        predictions = [
            {"id": record.id, "model_output": text(*gold)}
            for record, gold in zip(records, golds, strict=True)
        ]
        scores = score_predictions(records, predictions)
        assert {task: group["rows"] for task, group in scores["by"]["task"].items()} == SIZES
        assert scores["rows"] == scores["answered"] == 1_000
        return round((1 - scores["accuracy"]["all"]) * 1_000)

    assert wrong(lambda gold, letter: gold) == 0
    assert wrong(lambda gold, letter: f"The correct answer is {gold}.") == 0
    assert wrong(lambda gold, letter: f"({letter}) {gold}") == 0
