import json

import pytest

from sari_jax.cli import main
from sari_jax.generate.engine import Engine


@pytest.fixture
def mmau(starter_dir, tmp_path):
    """Seven questions in MMAU's form, one of whose clips cannot be read."""
    rows = []
    for line in (starter_dir / "test.jsonl").read_text().splitlines()[:7]:
        record = json.loads(line)
        rows.append(
            {
                "id": record["id"],
                "audio_id": f"./{record['audio'][0]['path']}",
                "question": record["question"],
                "choices": record["choices"],
                "answer": record["choices"][record["answer_index"]],
                "task": record["task"],
                "category": "Reasoning",
                "sub-category": record["kind"],
                "difficulty": record["difficulty"],
            }
        )
    (tmp_path / "audio").mkdir()
    for row in rows[:-1]:
        (tmp_path / row["audio_id"]).symlink_to(starter_dir / row["audio_id"])
    (tmp_path / rows[-1]["audio_id"]).write_bytes(b"RIFF")
    path = tmp_path / "mmau.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.tools
def test_killed_halfway_no_row_is_lost_or_answered_twice(
    mmau, small_model, tmp_path, capsys, monkeypatch
):
    def words(out: str) -> list[str]:
        words = ["eval", "--benchmark", "mmau-v05.15.25", "--questions", mmau]
        words += ["--model", small_model, "--out", tmp_path / out]
        words += ["--max-tokens", "4", "--rows", "2", "--json"]
        return [str(word) for word in words]

    assert main(words("whole")) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["rows"], scores["answered"]) == (7, 6)
    assert scores["by"]["category"]["Reasoning"]["rows"] == 7
    predictions = json.loads((tmp_path / "whole/predictions.json").read_text())
    assert [{k: v for k, v in row.items() if k != "model_output"} for row in predictions] == (
        json.loads(mmau.read_text())
    )
    assert ["model_output" in row for row in predictions] == [True] * 6 + [False]
    assert "RIFF" not in (tmp_path / "whole/completions.json").read_text()

    asked, answer = [], Engine._batch

    def dies(self, examples, *rest):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(len(examples))
        return answer(self, examples, *rest)

    monkeypatch.setattr(Engine, "_batch", dies)
    with pytest.raises(KeyboardInterrupt):
        main(words("halves"))
    assert not (tmp_path / "halves").exists()
    asked[:] = [0]
    monkeypatch.setattr(
        Engine,
        "_batch",
        lambda self, some, *rest: asked.append(len(some)) or answer(self, some, *rest),
    )
    assert main(words("halves")) == 0
    assert asked == [0, 2]  # the last batch has but the clip that cannot be read
    assert json.loads(capsys.readouterr().out) == scores
    settings = json.loads((tmp_path / "whole/settings.json").read_text())
    assert settings["temperature"] == 0 and settings["first_prompt"].count("<|AUDIO|>") == 1
    assert {"model", "data", "style", "version.jax", "version.sari_jax"} <= settings.keys()
    for name in ("predictions", "completions", "scores", "judged", "settings"):
        one, other = (tmp_path / f"{out}/{name}.json" for out in ("whole", "halves"))
        assert one.read_text() == other.read_text()
    assert not list(tmp_path.glob("*.attempts"))
