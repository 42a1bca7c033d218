import json

from sari_jax.train.metrics import Metrics, read_metrics


def test_rows_past_the_checkpoint_are_cut_when_a_run_resumes(tmp_path):
    metrics = Metrics(tmp_path, start=1)
    for step in (1, 2, 3):
        metrics.write(step, {"loss": float(step)})
        metrics.ask(step, [f"q{step}", "r"], [0.5, 1.0] if step == 1 else [])
        metrics.sample(step, [{"completion": "<b>x</b>"}])
    metrics.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # the kill came here

    metrics = Metrics(tmp_path, start=3)
    metrics.write(3, {"loss": 30.0})
    metrics.close()
    assert read_metrics(tmp_path) == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 2.0},
        {"step": 3, "loss": 30.0},
    ]
    questions = [json.loads(row) for row in (tmp_path / "questions.jsonl").read_text().splitlines()]
    assert questions == [
        {"step": 1, "ids": ["q1", "r"], "pass_rates": [0.5, 1.0]},
        {"step": 2, "ids": ["q2", "r"]},
    ]
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [1, 2]


def test_no_file_is_no_rows(tmp_path):
    assert read_metrics(tmp_path) == []
