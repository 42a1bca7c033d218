import json
import sys
from pathlib import Path

import pytest
from runs import finish


@pytest.mark.runs
def test_an_evaluation_killed_halfway_ends_with_the_same_bytes(small_model, tmp_path: Path):
    rows = [
        {
            "id": f"q{number}", "audio_id": f"./clips/{number}.wav", "question": "Which of them is heard?",
            "choices": ["a dog", "a cat", "rain"], "answer": ["a dog", "a cat", "rain"][number % 3], "task": "sound",
            "category": "Reasoning", "sub-category": "Source", "difficulty": "easy",
        }
        for number in range(36)
    ]  # fmt: skip
    (tmp_path / "questions.json").write_text(json.dumps(rows))
    options = {"benchmark": "mmau-original", "questions": tmp_path / "questions.json"}
    options |= {"model": small_model, "style": "direct", "max-tokens": 8, "rows": 2}
    options |= {"out": tmp_path / "out"}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    done = finish([sys.executable, "-m", "experiments.killed_eval", *words])
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout
    result = json.loads(done.stdout)
    assert (result["rows"], result["batches"], result["identical"]) == (36, 18, True)
    assert 9 <= result["kept_at_the_kill"] < 18
    names = ("completions", "judged", "predictions", "scores", "settings")
    assert result["files"] == [f"{name}.json" for name in names]
    scores = json.loads((tmp_path / "out/killed/scores.json").read_text())
    assert scores["rows"] == scores["answered"] == 36
