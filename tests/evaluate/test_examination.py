import json
from pathlib import Path

import pytest

from sari_jax.cli import main
from sari_jax.digests import files_digest
from sari_jax.errors import InputError
from sari_jax.evaluate.examination import Examination, examine
from sari_jax.parallel import hosts


@pytest.fixture
def questions(starter_dir, tmp_path) -> Path:
    """Three records, whose sound is not there: who scores does not need it."""
    path = tmp_path / "few.jsonl"
    lines = (starter_dir / "test.jsonl").read_text().splitlines()[:3]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def predictions(questions, tmp_path) -> Path:
    """The first is right, the second wrong, the third unanswered."""
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    given = [
        {"id": row["id"], "model_output": row["choices"][row["answer_index"] - wrong]}
        for wrong, row in enumerate(rows[:2])
    ]
    path = tmp_path / "given.json"
    path.write_text(json.dumps(given))
    return path


def content(folder: Path, name: str):
    return json.loads((folder / f"{name}.json").read_text())


def test_answers_that_are_given_are_judged_and_written(questions, predictions, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "out.attempts").mkdir()
    scores = examine(Examination(benchmark=str(questions), out=out, predictions=str(predictions)))
    assert scores["accuracy"] == {"answered": 0.5, "all": 1 / 3}
    assert sorted(path.name for path in out.iterdir()) == [
        f"{name}.json" for name in ("judged", "predictions", "scores", "settings")
    ]
    read = {"predictions": files_digest([predictions]), "data": files_digest([questions])}
    assert content(out, "settings") == read | hosts.versions()
    assert content(out, "scores") == scores
    assert content(out, "predictions") == json.loads(predictions.read_text())
    assert [row["right"] for row in content(out, "judged")] == [True, False, False]
    assert not (tmp_path / "out.attempts").exists()


@pytest.mark.parametrize(
    ("name", "max_tokens", "asks"),
    [
        ("direct", 256, "Give the answer in <answer>."),
        ("free", 512, "Think inside <think>, then"),
        ("structured", 512, "Think in <planning>, <caption>,"),
    ],
)
def test_each_style_asks_in_its_own_way_and_settings_tell_of_it(
    starter_dir, small_model, tmp_path, monkeypatch, capsys, name, max_tokens, asks
):
    asked = []

    def predict(engine, records, attempts, *_):
        asked.append(engine.processor.question(records[0], attempts.style).text)
        return [{"id": record.id, "model_output": ""} for record in records]

    monkeypatch.setattr("sari_jax.evaluate.examination.predict", predict)
    words = [
        "eval",
        "--benchmark",
        starter_dir / "test.jsonl",
        "--model",
        small_model,
        "--style",
        name,
    ]
    assert main([str(word) for word in [*words, "--out", tmp_path / "out", "--json"]]) == 0
    settings = content(tmp_path / "out", "settings")
    assert (settings["style"], settings["max_tokens"]) == (name, max_tokens)
    assert [settings["first_prompt"]] == asked and asks in asked[0]


def test_predictions_are_read_by_one_rule(questions, predictions, tmp_path):
    """A list or lines, with a mark of their order or without, in UTF-8 whatever the machine's own encoding is."""
    rows = json.loads(predictions.read_text())
    rows[1]["model_output"] += " Où"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    scores = []
    for number, text in enumerate((json.dumps(rows), lines)):
        predictions.write_bytes(b"\xef\xbb\xbf" + text.encode())
        out = tmp_path / str(number)
        scores.append(
            examine(Examination(benchmark=str(questions), out=out, predictions=str(predictions)))
        )
        assert content(out, "predictions") == rows
    assert scores[0] == scores[1] and scores[0]["accuracy"]["answered"] == 0.5


def test_half_of_a_character_ends_nothing(questions, predictions, tmp_path):
    rows = json.loads(predictions.read_text())
    rows[0]["model_output"] += " \ud83d"
    predictions.write_text(json.dumps(rows))
    scores = examine(
        Examination(benchmark=str(questions), out=tmp_path / "out", predictions=str(predictions))
    )
    assert scores["accuracy"]["answered"] == 0.5
    assert content(tmp_path / "out", "predictions") == rows


def test_what_was_there_stays(questions, predictions, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(InputError, match="exists and is not empty"):
        examine(Examination(benchmark=str(questions), out=out, predictions=str(predictions)))
    with pytest.raises(InputError, match="no such folder"):
        examine(
            Examination(
                benchmark=str(questions), out=tmp_path / "a/b", predictions=str(predictions)
            )
        )
    assert [path.name for path in out.iterdir()] == ["mine"] and not (tmp_path / "a").exists()


def test_predictions_that_cannot_be_read_leave_nothing_behind(questions, tmp_path):
    (tmp_path / "given.json").write_text("{")
    with pytest.raises(InputError, match="given.json: not readable as JSON"):
        examine(
            Examination(
                benchmark=str(questions),
                out=tmp_path / "out",
                predictions=str(tmp_path / "given.json"),
            )
        )
    assert not (tmp_path / "out").exists()


def test_where_answers_are_withheld_they_are_counted_alone(tmp_path):
    rows = [
        {"id": name, "question": "?", "choices": ["a", "b"], "model_output": "a"} for name in "xy"
    ]
    rows[1]["model_output"] = None
    (tmp_path / "given.json").write_text(json.dumps(rows))
    exam = Examination(
        benchmark="mmau-test", out=tmp_path / "out", predictions=str(tmp_path / "given.json")
    )
    scores = examine(exam)
    assert (scores["rows"], scores["answered"]) == (2, 1) and "accuracy" not in scores
    assert scores["checked"] is False
    assert content(tmp_path / "out", "predictions") == rows
    assert not (tmp_path / "out/judged.json").exists()


@pytest.mark.parametrize("benchmark", ["records", "mmau-original", "mmau-test", "voicebench-mmsu"])
@pytest.mark.parametrize("key", ["answer_prediction", "none"])
def test_where_nothing_is_answered_nothing_is_scored(
    questions, predictions, tmp_path, capsys, benchmark, key
):
    """Under another key, or null under the right one."""
    row = {"id": "x", "question": "?", "choices": ["a", "b"], "answer": "a", "reference": "A"}
    rows = json.loads(predictions.read_text()) if benchmark == "records" else [row]
    own = "response" if benchmark == "voicebench-mmsu" else "model_output"
    rows = [{k: v for k, v in row.items() if k != own} for row in rows]
    rows = [row | ({own: None} if key == "none" else {key: "a"}) for row in rows]
    predictions.write_text(json.dumps(rows))
    name = str(questions) if benchmark == "records" else benchmark
    words = ["eval", "--benchmark", name, "--predictions", str(predictions)]
    assert main([*words, "--out", str(tmp_path / "out"), "--json"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and len(told.err.splitlines()) == 1
    assert f"rows has an answer under '{own}'" in told.err
    assert repr(own if key == "none" else key) in told.err.split("the rows have the keys")[1]
    assert not (tmp_path / "out").exists()


def test_where_few_are_answered_a_line_says_so(questions, predictions, tmp_path, capsys):
    words = ["eval", "--benchmark", str(questions), "--predictions", str(predictions), "--json"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert told.err.startswith("sari: warning: 2 of 3 rows have an answer (1 have none")
    assert json.loads(told.out)["answered"] == 2


@pytest.mark.parametrize("answer", ["A", "a ", "other"])
def test_an_answer_that_is_no_choice_is_scored_as_the_script_does_and_told(
    tmp_path, capsys, answer
):
    row = {"id": "x", "question": "?", "choices": ["a", "b"], "answer": "a", "model_output": "a"}
    (tmp_path / "given.json").write_text(json.dumps([row, row | {"id": "y", "answer": answer}]))
    words = ["eval", "--benchmark", "mmau-original", "--predictions", str(tmp_path / "given.json")]
    assert main([*words, "--out", str(tmp_path / "out"), "--json"]) == 0
    told = capsys.readouterr()
    scores = json.loads(told.out)
    assert scores["answer_not_a_choice"] == 1
    assert scores["official"]["accuracy"] == (0.5 if answer == "other" else 1.0)
    assert "in 1 of 2 rows the right answer is not among the choices" in told.err


@pytest.mark.parametrize(
    "words",
    [["eval", "--benchmark"], ["score", "--attempts", "2", "--data"]],
    ids=["eval", "score"],
)
def test_where_no_sound_can_be_taken_nothing_is_scored(
    words, starter_dir, small_model, tmp_path, capsys
):
    lines = (starter_dir / "test.jsonl").read_text().splitlines()[:2]
    records = [json.loads(line) for line in lines]
    for record in records:
        record["audio"] = [{"path": str(tmp_path / "bad.wav")}]
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    asked = ["--model", str(small_model), "--out", str(tmp_path / "out"), "--max-tokens", "4"]
    assert main([*words, str(tmp_path / "few.jsonl"), *asked, "--json"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and "none of 2 questions could be" in told.err
    assert "bad.wav" in told.err and not (tmp_path / "out").exists()
    assert not (tmp_path / "out.attempts/batch-000000.jsonl").exists()
