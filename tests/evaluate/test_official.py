"""Scores against an implementation of each benchmark's published rule that shares nothing with ours."""

import json
import random
import re
import time
from pathlib import Path

import pytest

from sari_jax.cli import main
from sari_jax.digests import files_digest
from sari_jax.errors import InputError
from sari_jax.evaluate.benchmarks import BENCHMARKS, DIGESTS, PUBLISHED, read_rows, rows_digest
from sari_jax.evaluate.official import joined, score_rows
from sari_jax.parallel import hosts

SHARED = Path(__file__).parents[3] / "shared/data/mmau"
FILES = {
    "mmau-original": "mmau-test-mini-original.json",
    "mmau-v05.15.25": "mmau-test-mini-v05.15.25.json",
}


def as_published(rows, group, verdict) -> tuple[list, dict]:
    """Right answers and rows of all and of each value; a row of which the script says None counts nowhere."""
    whole, by = [0, 0], {}
    for row in rows:
        good = verdict(row)
        if good is None:
            continue
        parts = [row.get(field) for field in group.split(" / ")]
        if len(parts) > 1:
            values = [" / ".join(parts)] if None not in parts else []
        else:
            values = parts[0] if isinstance(parts[0], list) else parts
        for of in (whole, *(by.setdefault(v, [0, 0]) for v in values if v is not None)):
            of[0], of[1] = of[0] + good, of[1] + 1
    return whole, by


def matched(key):
    return lambda row: string_match(row, row[key]) if key in row else None


def string_match(row, prediction) -> bool:
    def tokens(text: str) -> set[str]:
        return set(re.findall(r"\w+", text.lower()))

    said, gold = tokens(prediction), tokens(row["answer"])
    if not said:
        return False
    others = [tokens(choice) for choice in row["choices"] if tokens(choice) != gold]
    bad = {word for other in others for word in other if word not in gold}
    return all(word in said for word in gold) and not any(word in bad for word in said)


def lettered(row) -> bool | None:
    said = row["response"] if "response" in row else ""
    if not isinstance(said, str):
        return None
    said = "".join(said.strip().split("\n"))
    if said == "" or said == "None":
        return False
    place = "ABCD".find(said[0])
    if place < 0 and len(said) >= 2:
        place = "ABCD".find(said[len(said) - 2])
    if place < 0:
        return None
    return row["choice_" + "abcd"[place]] == row["answer_gt"]


def predictions(rows, key, choices_of, rng) -> list[dict]:
    """Right, wrong, odd, empty and missing answers; rows repeated, left out and with more keys."""
    given = []
    for row in rows:
        choices = choices_of(row)
        answer = rng.choice(choices)
        letter = rng.choice("ABCDE")
        odd = [
            "", " ", "é\u2028ß", "(B) " + answer, f"The correct answer is {answer}.", answer.upper(), "A", "B)", "\x00",
            "half \ud83d", "None", " None\n", "None.", "\n", f" {letter}", f"\n{letter}. x", f"({letter})\n",
            f"{letter}\n", f"so {letter}\n.", f"The answer is {letter}.", f"x{letter}", f"{letter.lower()}", "No\nne",
            f"I cannot tell {answer}", f"{letter}\n\n", f"\t{letter}\r\n", f"it is {letter}\r\n!",
        ]  # fmt: skip
        row = dict(row, extra={"a": 1})
        kind = rng.random()
        if kind < 0.9:
            row[key] = (
                answer if kind < 0.4 else rng.choice(odd) if kind < 0.8 else " ".join(choices)
            )
        elif kind < 0.95 and key == "response":  # the other scripts end at null
            row[key] = None
        given += [row] * (2 if rng.random() < 0.03 else 1)
    rng.shuffle(given)
    return given


def compare(name, rows, group, verdict, seed) -> None:
    benchmark, rng = BENCHMARKS[name], random.Random(seed)
    given = predictions(rows, benchmark.key, benchmark.choices, rng)
    (good, counted), by = as_published(given, group, verdict)
    scores = score_rows(benchmark, joined(benchmark, given))
    assert scores["official"] == {"accuracy": good / counted if counted else None, "rows": counted}
    assert scores["rows"] == len(given)
    answered = [row for row in given if row.get(benchmark.key) is not None]
    assert scores["answered"] == len(answered)
    assert scores["accuracy"]["all"] == pytest.approx(good / len(given))
    if answered:
        assert scores["accuracy"]["answered"] == pytest.approx(good / len(answered))
    found = {v: of["official"] for v, of in scores["by"][group].items() if of["official"]["rows"]}
    assert found == {v: {"accuracy": of[0] / of[1], "rows": of[1]} for v, of in by.items()}
    assert {v: of["right"] for v, of in scores["by"][group].items() if v in by} == {
        v: of[0] for v, of in by.items()
    }


@pytest.mark.parametrize("seeds", [range(2), pytest.param(range(2, 25), marks=pytest.mark.tools)])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("group", ["task", "category", "sub-category", "difficulty"])
def test_mmau_on_random_predictions(name, group, seeds):
    if not SHARED.is_dir():
        pytest.skip(f"the benchmark's questions are not there: {SHARED}")
    rows = read_rows(SHARED / FILES[name], BENCHMARKS[name])
    assert len(rows) == 1000
    for seed in seeds:  # 200 files in all
        compare(name, rows, group, matched("model_output"), seed)


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
        "task_name": f"t{i % 4}", "category": ["Perception", "Reasoning"][i % 2],
        "sub-category": None if i % 5 == 0 else "Paint",
    }
    for i in range(40)
]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_mmar_and_mmsu_on_random_predictions(seed):
    for group in ("modality", "category", "sub-category"):
        compare("mmar", MMAR, group, matched("answer_prediction"), seed)
    for group in ("task_name", "category", "sub-category", "category / sub-category"):
        compare("mmsu", MMSU, group, lettered, seed)


@pytest.mark.parametrize(
    "response, official",
    [
        ("A", (1, 1)), (" A", (1, 1)), ("\nA. x", (1, 1)), ("(A)\n", (1, 1)), ("A\n", (1, 1)), ("so A\n.", (1, 1)),
        ("B", (0, 1)), ("", (0, 1)), ("None", (0, 1)), (" \n", (0, 1)), (..., (0, 1)),
        (None, (None, 0)), ("red", (None, 0)), ("a", (None, 0)), ("None!", (None, 0)), ("E", (None, 0)),
    ],
)  # fmt: skip
def test_what_mmsus_script_counts(response, official):
    """`...` is a row without the key."""
    row = MMSU[0] if response is ... else MMSU[0] | {"response": response}
    scores = score_rows(BENCHMARKS["mmsu"], joined(BENCHMARKS["mmsu"], [row]))
    assert scores["official"] == dict(zip(("accuracy", "rows"), official, strict=True))
    assert scores["accuracy"]["all"] == (official[0] or 0)
    assert scores["answered"] == (response is not ... and response is not None)


def test_predictions_by_id_alone_and_questions_without_any():
    benchmark = BENCHMARKS["mmar"]
    given = [
        {"id": "m0", "answer_prediction": "a dog"},
        {"id": "m1", "answer_prediction": ""},
        {"id": "m2"},
    ]
    scores = score_rows(benchmark, joined(benchmark, given, MMAR))
    assert (scores["rows"], scores["answered"]) == (30, 2)
    assert scores["accuracy"] == {"answered": 0.5, "all": 1 / 30}
    assert scores["by"]["modality"]["sound"]["rows"] == 15
    none = score_rows(benchmark, joined(benchmark, [{"id": "m2"}], MMAR))
    assert none["accuracy"] == {"answered": None, "all": 0.0}
    assert none["official"] == {"accuracy": None, "rows": 0}


def test_what_cannot_be_scored():
    benchmark = BENCHMARKS["mmar"]
    with pytest.raises(InputError, match="id 'x' is not in the benchmark's file"):
        joined(benchmark, [{"id": "x"}], MMAR)
    with pytest.raises(InputError, match="row 0 lacks 'choices'"):
        joined(benchmark, [{"id": "m0", "answer_prediction": "a dog"}])
    with pytest.raises(InputError, match="its answers are withheld"):
        joined(BENCHMARKS["mmau-test"], [])


@pytest.mark.parametrize(
    "name, row, field, other",
    [
        ("mmar", MMAR[0], "answer", "a cat"),
        ("mmar", MMAR[0], "choices", ["a dog"]),
        ("mmar", MMAR[0], "sub-category", None),
        ("mmsu", MMSU[0], "choice_b", "red"),
        ("mmsu", MMSU[0], "answer_gt", "green"),
        ("mmsu", MMSU[0], "category", "Reasoning"),
    ],
)
def test_the_question_wins_and_nothing_scored_may_differ(name, row, field, other):
    benchmark = BENCHMARKS[name]
    with pytest.raises(InputError, match=rf"row 0: '{row['id']}': its {field} is .* one version"):
        joined(benchmark, [row | {field: other}], [row])
    with pytest.raises(InputError, match=f"file: row 1: '{row['id']}': its {field} is"):
        joined(benchmark, [], [row, row | {field: other}])
    prediction = row | {"question": "Another?", benchmark.key: "x", "mine": 1}
    assert joined(benchmark, [prediction], [row]) == [row | {benchmark.key: "x", "mine": 1}]
    assert joined(benchmark, [row], [row | {benchmark.key: "not said"}]) == [row]


def test_joining_takes_time_with_the_rows_and_not_with_their_square():
    questions = [MMAR[0] | {"id": str(number)} for number in range(20_000)]
    begun = time.process_time()
    assert joined(BENCHMARKS["mmar"], questions[1:], questions)[-1] == questions[0]
    assert time.process_time() - begun < 5


def of_test_mini(name: str) -> list[dict]:
    if not SHARED.is_dir():
        pytest.skip(f"the benchmark's questions are not there: {SHARED}")
    return read_rows(SHARED / FILES[name], BENCHMARKS[name])


@pytest.mark.parametrize("name", FILES)
def test_a_version_is_told_by_its_rows(name):
    rows = of_test_mini(name)
    assert rows_digest(rows) == DIGESTS[name] == rows_digest([*rows[::-1], rows[0]])
    benchmark, (other,) = BENCHMARKS[name], FILES.keys() - {name}
    scores = score_rows(benchmark, rows)
    assert scores["checked"] is True and scores["published"] == PUBLISHED.get(name, {})
    for some in (rows[1:], [rows[0] | {"choices": [*rows[0]["choices"], "more"]}, *rows[1:]]):
        scores = score_rows(benchmark, some)
        assert scores["checked"] is False and scores["published"] == {}
    ids = [{"id": row["id"]} for row in rows[:3]]
    assert score_rows(benchmark, joined(benchmark, ids, rows))["checked"] is True
    with pytest.raises(InputError, match=f"the rows of {name}, not of {other}"):
        score_rows(BENCHMARKS[other], rows)


@pytest.mark.parametrize("given", ["--predictions", "--questions"])
def test_the_command_refuses_another_versions_file(tmp_path, capsys, given):
    of_test_mini("mmau-original")
    file = str(SHARED / FILES["mmau-original"])
    words = ["--predictions", file] if given == "--predictions" else ["--questions", file]
    words += [] if given == "--predictions" else ["--model", "none"]
    out = str(tmp_path / "out")
    assert main(["eval", "--benchmark", "mmau-v05.15.25", *words, "--out", out]) == 2
    assert "mmau-original, not of mmau-v05.15.25" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_published_figures_have_a_source_each_and_none_stand_where_the_rows_are_others():
    figures = [figure for rows in PUBLISHED.values() for figure in rows.values()]
    assert all(isinstance(figure["source"], str) and 0 < figure["all"] < 1 for figure in figures)
    voicebench = BENCHMARKS["voicebench-mmsu"]
    rows = [{"question_id": number, "reference": "A"} for number in range(3074)]
    assert score_rows(voicebench, rows)["published"] == PUBLISHED["voicebench-mmsu"]
    assert score_rows(voicebench, rows)["checked"] is False
    assert score_rows(voicebench, rows[1:])["published"] == {}


def test_a_response_that_cannot_be_read_is_counted():
    rows = [MMSU[0] | {"response": text} for text in ("A", "red", "")]
    scores = score_rows(BENCHMARKS["mmsu"], rows)
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
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    assert settings == {"predictions": files_digest([given])} | hosts.versions()
    assert main(["eval", "--benchmark", "mmar", "--model", "x", "--out", str(tmp_path / "b")]) == 2
    assert "--questions" in capsys.readouterr().err


def test_half_of_a_character_is_written_and_told(tmp_path, capsys):
    given, questions = tmp_path / "given.jsonl", tmp_path / "questions.jsonl"
    rows = [row | {"response": "A \ud83d", "sub-category": "\udc00"} for row in MMSU]
    given.write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions.write_text("".join(json.dumps(row | {"response": None}) + "\n" for row in rows))
    words = ["eval", "--benchmark", "mmsu", "--predictions", given, "--questions", questions]
    for name, more in (("a", ["--json"]), ("b", [])):
        assert main([str(word) for word in [*words, "--out", tmp_path / name, *more]]) == 0
        told = capsys.readouterr().out
        told.encode()
        assert json.loads(told) == json.loads((tmp_path / name / "scores.json").read_text())
    assert "\udc00" in json.loads(told)["by"]["sub-category"]
    lines = (tmp_path / "a/predictions.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == rows
    settings = json.loads((tmp_path / "a/settings.json").read_text())
    assert settings["predictions"] == files_digest([given])
    assert settings["data"] == files_digest([questions])
    assert main(["eval", "--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0


def test_rows_are_joined_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "sari_jax.evaluate.examination.joined", lambda *given: calls.append(1) or joined(*given)
    )
    rows = [row | {"answer_prediction": "a dog"} for row in MMAR]
    (tmp_path / "given.json").write_text(json.dumps(rows))
    words = ["eval", "--benchmark", "mmar", "--predictions", tmp_path / "given.json"]
    assert main([str(word) for word in [*words, "--out", tmp_path / "out"]]) == 0
    assert calls == [1]
