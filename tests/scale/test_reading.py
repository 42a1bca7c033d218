import json

import pytest

from sari_jax.cli import main


@pytest.mark.parametrize(
    "workers", [("0",), pytest.param(("0", "1"), id="0-1", marks=pytest.mark.tools)]
)
def test_reading_speeds(small_model, starter_dir, capsys, workers):
    words = ["data", "bench", "--data", starter_dir / "test.jsonl", "--model", small_model]
    words += ["--json"]
    words += ["--batches", "2", "--batch-size", "4", "--workers", *workers]
    assert main([str(word) for word in words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["workers"]) == list(workers) and result["cores"] >= 1
    assert 1 < result["clip_seconds"] < 5
    for row in result["workers"].values():
        assert row["clips_per_second"] > 0 and row["worker_mib"] > 20
        seconds = row["sound_seconds_per_second"] / row["clips_per_second"]
        assert seconds == pytest.approx(result["clip_seconds"], rel=1e-6)


def test_the_share_of_a_run_that_waited(tmp_path, capsys):
    words = ["data", "bench", "--workdir", str(tmp_path), "--json"]
    assert main(words) == 2 and "no metrics" in capsys.readouterr().err
    rows = [(9.0, 9.0), (0.1, 1.0), (0.3, 3.0)]
    lines = [
        json.dumps({"step": step, "seconds_data": waited, "seconds": seconds}) + "\n"
        for step, (waited, seconds) in enumerate(rows, 1)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["share"] == pytest.approx(0.1) and result["steps"] == 2
    assert main(["data", "bench"]) == 2
    assert "name --data and --model" in capsys.readouterr().err
