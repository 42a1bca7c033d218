"""Scores against an implementation of each benchmark's published rule that shares nothing with ours."""

import json
import random
import re
from pathlib import Path

import pytest

from sari_jax.cli import main
from sari_jax.errors import InputError
from sari_jax.evaluate.benchmarks import BENCHMARKS, read_rows
from sari_jax.evaluate.official import score_rows

SHARED = Path(__file__).parents[3] / "shared/data/mmau"
FILES = {
    "mmau-original": "mmau-test-mini-original.json",
    "mmau-v05.15.25": "mmau-test-mini-v05.15.25.json",
}


def as_published(rows, key, group, right) -> tuple[float | None, dict]:
    """Rows without the key count nowhere; each value's right answers and rows."""
    counted, good, by = 0, 0, {}
    for row in rows:
        if key not in row:
            continue
        verdict = right(row, row[key])
        counted, good = counted + 1, good + verdict
        values = row.get(group)
        for value in values if isinstance(values, list) else [values]:
            if value is not None:
                of = by.setdefault(value, [0, 0])
                of[0], of[1] = of[0] + verdict, of[1] + 1
    return (good / counted if counted else None), by


def string_match(row, prediction) -> bool:
    tokens = lambda text: {word for word in re.findall(r"\w+", text.lower())}  # noqa: E731
    said, gold = tokens(prediction), tokens(row["answer"])
    if not said:
        return False
    others = [tokens(choice) for choice in row["choices"] if tokens(choice) != gold]
    bad = {word for other in others for word in other if word not in gold}
    return all(word in said for word in gold) and not any(word in bad for word in said)


def first_letter(row, response) -> bool:
    for letter in (response[:1], response[-2:-1]):
        if letter in ("A", "B", "C", "D"):
            return row["choice_" + letter.lower()] == row["answer_gt"]
    return False


def predictions(rows, key, choices_of, rng) -> list[dict]:
    """Right, wrong, odd, empty and missing answers; rows repeated, left out and with more keys."""
    given = []
    for row in rows:
        choices = choices_of(row)
        answer = rng.choice(choices)
        odd = [
            "",
            " ",
            "é\u2028ß",
            "(B) " + answer,
            f"The correct answer is {answer}.",
            answer.upper(),
            "A",
            "B)",
            "\x00",
        ]
        row = dict(row, extra={"a": 1})
        kind = rng.random()
        if kind < 0.9:
            row[key] = (
                answer if kind < 0.6 else rng.choice(odd) if kind < 0.8 else " ".join(choices)
            )
        given += [row] * (2 if rng.random() < 0.03 else 1)
    rng.shuffle(given)
    return given


def compare(name, rows, group, right, seed) -> None:
    benchmark, rng = BENCHMARKS[name], random.Random(seed)
    given = predictions(rows, benchmark.key, benchmark.choices, rng)
    figure, by = as_published(given, benchmark.key, group, right)
    scores = score_rows(benchmark, given)
    assert scores["accuracy"]["answered"] == figure
    assert scores["rows"] == len(given)
    assert scores["answered"] == sum(benchmark.key in row for row in given)
    assert scores["accuracy"]["all"] == pytest.approx(
        (figure or 0) * scores["answered"] / len(given)
    )
    found = {
        v: [of["right"], of["answered"]] for v, of in scores["by"][group].items() if of["answered"]
    }
    assert found == by


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("group", ["task", "category", "sub-category", "difficulty"])
def test_mmau_on_random_predictions(name, group):
    if not SHARED.is_dir():
        pytest.skip(f"the benchmark's questions are not there: {SHARED}")
    rows = read_rows(SHARED / FILES[name], BENCHMARKS[name])
    assert len(rows) == 1000
    for seed in range(25):  # 200 files in all
        compare(name, rows, group, string_match, seed)


CHOICES = [
    ["a dog", "a cat"], ["4/4", "3/4", "6/8"], ["yes", "no"], ["Blues rock", "blues"], ["ß", "é"],
    ["one", "one", "two"],
]  # fmt: skip
MMAR = [
    {
        "id": f"m{i}", "audio_path": f"{i}.wav", "question": "Which?", "choices": choices,
        "answer": choices[i % len(choices)], "modality": ["sound", "mix-sound-speech"][i % 2],
        "category": ["Signal Layer", "Cultural Layer"][i % 2], "sub-category": f"s{i % 3}",
    }
    for i, choices in enumerate(CHOICES * 5)
]  # fmt: skip
MMSU = [
    {
        "id": f"u{i}", "audio_path": f"{i}.wav", "question": "Which?", "choice_a": "red", "choice_b": "green",
        "choice_c": "blue", "choice_d": "A red", "answer_gt": ["red", "blue", "A red"][i % 3],
        "task_name": f"t{i % 4}", "category": "Perception", "sub-category": None if i % 5 == 0 else "Paint",
    }
    for i in range(40)
]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_mmar_and_mmsu_on_random_predictions(seed):
    for group in ("modality", "category", "sub-category"):
        compare("mmar", MMAR, group, string_match, seed)
    for group in ("task_name", "category", "sub-category"):
        compare("mmsu", MMSU, group, first_letter, seed)


def test_predictions_by_id_alone_and_questions_without_any():
    benchmark = BENCHMARKS["mmar"]
    given = [
        {"id": "m0", "answer_prediction": "a dog"},
        {"id": "m1", "answer_prediction": ""},
        {"id": "m2"},
    ]
    scores = score_rows(benchmark, given, MMAR)
    assert (scores["rows"], scores["answered"]) == (30, 2)
    assert scores["accuracy"] == {"answered": 0.5, "all": 1 / 30}
    assert scores["by"]["modality"]["sound"]["rows"] == 15
    assert score_rows(benchmark, [{"id": "m2"}], MMAR)["accuracy"] == {"answered": None, "all": 0.0}


def test_what_cannot_be_scored():
    benchmark = BENCHMARKS["mmar"]
    with pytest.raises(InputError, match="id 'x' is not in the benchmark's file"):
        score_rows(benchmark, [{"id": "x"}], MMAR)
    with pytest.raises(InputError, match="its answer is not that of 'm0'"):
        score_rows(benchmark, [MMAR[0] | {"answer": "a cat"}], MMAR)
    with pytest.raises(InputError, match="row 0 lacks 'choices'"):
        score_rows(benchmark, [{"id": "m0", "answer_prediction": "a dog"}])
    with pytest.raises(InputError, match="its answers are withheld"):
        score_rows(BENCHMARKS["mmau-test"], [])


def test_a_response_that_cannot_be_read_is_counted():
    scores = score_rows(
        BENCHMARKS["mmsu"], [MMSU[0] | {"response": text} for text in ("A", "red", "")]
    )
    assert (scores["answered"], scores["unreadable"], scores["repeated"]) == (3, 2, 2)


def test_the_command_scores_a_file_as_it_stands(tmp_path, capsys):
    given = tmp_path / "given.json"
    given.write_text(json.dumps([row | {"answer_prediction": row["answer"]} for row in MMAR]))
    words = ["eval", "--benchmark", "mmar", "--predictions", str(given), "--out"]
    assert main([*words, str(tmp_path / "out"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores == json.loads((tmp_path / "out/scores.json").read_text())
    assert scores["accuracy"]["all"] > 0.8 and scores["benchmark"] == "mmar"
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == json.loads(
        given.read_text()
    )
    assert main(["eval", "--benchmark", "mmar", "--model", "x", "--out", str(tmp_path / "b")]) == 2
    assert "--questions" in capsys.readouterr().err
