import json

import pytest

import sari_jax as sari
from sari_jax.errors import InputError
from sari_jax.evaluate import difficulty
from sari_jax.generate.engine import Engine


@pytest.fixture
def questions(starter_dir, tmp_path):
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join((starter_dir / "test.jsonl").read_text().splitlines()[:4]) + "\n")
    (tmp_path / "audio").symlink_to(starter_dir / "audio")
    return path


def predictions(questions, folder, right):
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    given = [
        {"id": row["id"], "model_output": row["choices"][row["answer_index"] - (i >= right)]}
        for i, row in enumerate(rows)
    ]
    folder.mkdir()
    (folder / "given.json").write_text(json.dumps(given))
    return folder / "given.json"


def test_answers_are_scored_and_compared(questions, tmp_path):
    for name, right in (("a", 1), ("b", 3)):
        given = predictions(questions, tmp_path / f"given-{name}", right)
        scores = sari.evaluate(questions, tmp_path / name, predictions=given)
        assert scores["accuracy"]["all"] == right / 4
        assert scores == json.loads((tmp_path / name / "scores.json").read_text())
    result = sari.compare(tmp_path / "a", tmp_path / "b")
    assert result["difference"] == 0.5 and len(result["gained"]) == 2
    with pytest.raises(
        InputError,
        match=r"a model to answer: model \(--model DIR\); or a file to score: predictions",
    ):
        sari.evaluate(questions, tmp_path / "c")


def test_pass_rates_that_are_kept(questions, small_model, tmp_path, monkeypatch):
    class Nothing(Engine):
        def __init__(self, *_, **__):
            pass

    monkeypatch.setattr("sari_jax.api.evaluation.Engine", Nothing)
    seen = []

    def rated(engine, records, attempts, folder, settings):
        seen.append((attempts, folder, settings))
        rows = [
            {"id": record.id, "attempts": [{"right": i < 2}, {"right": i < 1}]}
            for i, record in enumerate(records)
        ]
        monkeypatch.setattr(difficulty, "attempted", lambda *_: rows)
        return rate(engine, records, attempts, folder, settings)

    rate = difficulty.rated
    monkeypatch.setattr(difficulty, "rated", rated)
    out = tmp_path / "scored.jsonl"
    report = sari.score(small_model, questions, out, attempts=2, style="direct", drop_solved=True)
    assert report["dropped"] == {"pass rate 1": 1, "pass rate 0": 2} and report["kept"] == 1
    assert [record.pass_rate for record in sari.read_records(out)] == [0.5]
    ((attempts, folder, settings),) = seen
    assert (attempts.count, attempts.temperature, attempts.max_tokens) == (2, 1.0, 256)
    assert folder == tmp_path / "scored.attempts" and settings["dtype"] == "float32"
    with pytest.raises(InputError, match=r"no such folder; make it, or name another out \(--out\)"):
        sari.score(small_model, questions, tmp_path / "no" / "scored.jsonl")
