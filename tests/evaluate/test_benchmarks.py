import json

import pytest

from sari_jax.errors import InputError
from sari_jax.evaluate.benchmarks import BENCHMARKS, as_records, read_objects, read_rows

MMAU = {
    "id": "a", "audio_id": "./clips/a.wav", "question": "What barks?", "choices": ["cat", "dog"], "answer": "dog",
    "task": "sound", "category": ["Reasoning"], "sub-category": "Scene", "difficulty": "easy",
}  # fmt: skip
MMSU = {
    "id": "b", "audio_path": "b.wav", "question": "Which?", "choice_a": "red", "choice_b": "green",
    "choice_c": "blue", "choice_d": "grey", "answer_gt": "blue",
    "task_name": "colour", "category": "Perception", "sub-category": "Paint",
}  # fmt: skip


@pytest.mark.parametrize("lines", [False, True])
def test_lists_and_lines(tmp_path, lines):
    rows = [MMAU, MMAU | {"id": "\u2028", "extra": 1}]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "a").write_text(text if lines else json.dumps(rows))
    assert read_rows(tmp_path / "a", BENCHMARKS["mmau-original"]) == rows


@pytest.mark.parametrize(
    "rows, match",
    [
        ("{", "not readable as JSON"),
        ("[]", "must hold a list of objects"),
        ("[1]", "must hold a list of objects"),
        (
            json.dumps([MMAU, {"id": "b"}]),
            "row 1 lacks 'choices'; give a file in the form of mmau-original",
        ),
        (json.dumps([MMAU | {"answer": 3}]), "must be texts"),
        (json.dumps([MMAU | {"choices": "dog"}]), "must be texts"),
        (json.dumps([MMAU | {"model_output": 3}]), "model_output is 3; give the answer's text"),
    ],
)
def test_what_is_not_the_benchmarks_form(tmp_path, rows, match):
    (tmp_path / "a").write_text(rows)
    with pytest.raises(InputError, match=match):
        read_rows(tmp_path / "a", BENCHMARKS["mmau-original"])


@pytest.mark.parametrize(
    "response, right",
    [
        ("C", True), ("C. blue", True),
        ("A", False), ("The answer is C.", False), ("It is (C)", True),
        ("answer: C.", True), (" C", True), ("\nC. x", True), ("(C)\n", True), ("None", None),
        ("c", None), ("", None), ("blue", None), ("D", False), ("so C!", True),
    ],
)  # fmt: skip
def test_mmsu_reads_a_letter_at_either_end(response, right):
    """By the first character, or else by the last but one. "The answer is C." ends well but begins with no choice."""
    found = BENCHMARKS["mmsu"].is_right(MMSU, response)
    assert found == (True if response == "The answer is C." else right)


def test_what_is_written_for_mmsu_is_a_letter():
    said = BENCHMARKS["mmsu"].format_prediction
    assert [said(MMSU, answer) for answer in ("blue", "Green.", "D", "pink")] == ["C", "B", "D", ""]


def test_questions_for_a_model(tmp_path):
    for row, benchmark in ((MMAU, "mmau-test"), (MMSU, "mmsu")):
        path = tmp_path / str(row.get("audio_id", row.get("audio_path")))
        with pytest.raises(InputError, match="no sound file"):
            as_records([row], BENCHMARKS[benchmark], tmp_path)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        (record,) = as_records([row], BENCHMARKS[benchmark], tmp_path)
        assert record.question == row["question"] and record.source == benchmark
    assert record.choices == ("red", "green", "blue", "grey") and record.answer_index == 2
    for answer in ("pink", "Blue", "blue "):  # scored by the script's rule, not by the record's
        (record,) = as_records([MMSU | {"answer_gt": answer}], BENCHMARKS["mmsu"], tmp_path)
        assert record.answer_index == 0
    with pytest.raises(InputError, match="row 0 has no choices"):
        as_records([MMAU | {"choices": []}], BENCHMARKS["mmau-test"], tmp_path)
    with pytest.raises(
        InputError, match="row 0: 'half .ud83d' contains an unpaired surrogate; fix the file"
    ):
        as_records([MMSU | {"choice_a": "half \ud83d"}], BENCHMARKS["mmsu"], tmp_path)


def test_a_file_of_another_kind_is_named(tmp_path):
    path = tmp_path / "questions.parquet"
    path.write_bytes(b"PAR1\xff\xfe\x00PAR1")
    with pytest.raises(InputError, match="questions.parquet: a Parquet file"):
        read_objects(path)
    with pytest.raises(InputError, match="no_such.json: not readable as JSON"):
        read_objects(tmp_path / "no_such.json")
    with pytest.raises(InputError):
        read_objects(tmp_path)
