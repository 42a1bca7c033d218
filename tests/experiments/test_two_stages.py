"""The summaries of `make demo` and `make smol`."""

import json

import pytest

from experiments.two_stages import STAGES, summarise
from sari_jax.data.records import write_records


def write_rows(path, *rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_each_stage_in_numbers(tmp_path, make_record):
    (tmp_path / "dog.wav").write_bytes(b"never read")
    records = [make_record(), make_record(id="r2", choices=("cat", "dog"), answer_index=0)]
    write_records(tmp_path / "test.jsonl", records)
    for place, stage in enumerate(STAGES):
        scores = {"accuracy": {"all": place / 2}, "interval": [0.0, 1.0]}
        write_rows(tmp_path / f"eval-{stage}/scores.json", scores)
        said = [{"format": place > 0}, {"format": place > 1}]
        write_rows(tmp_path / f"eval-{stage}/predictions.json", said)
    for stage in STAGES[1:]:
        steps = [{"step": n, "seconds": 30.0, "model_tflop": 0.25} for n in (1, 2, 3)]
        write_rows(tmp_path / f"run-{stage}/metrics.jsonl", *steps)
        asked = [{"step": 0, "accuracy": 0.25}, {"step": 3, "accuracy": 0.5}]
        write_rows(tmp_path / f"run-{stage}/held_out.jsonl", *asked)
    summary = summarise(tmp_path)
    assert summary["chance"] == pytest.approx((1 / 3 + 1 / 2) / 2) and summary["test_examples"] == 2
    assert summary["accuracy"] == {"base": 0.0, "sft": 0.5, "grpo": 1.0}
    assert summary["format_rate"] == {"base": 0.0, "sft": 0.5, "grpo": 1.0}
    assert summary["held_out"]["grpo"] == [[0, 0.25], [3, 0.5]]
    for name, value in (("steps", 3), ("stage_minutes", 1.5), ("model_tflop", 0.8)):
        assert summary[name] == {"sft": value, "grpo": value}
