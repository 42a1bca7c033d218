import json

from sari_jax.data.ledger import Ledger
from sari_jax.report.difficulty import plot_pass_rates, report_difficulty


def test_questions_by_attempts_that_were_right(tmp_path):
    report = plot_pass_rates([0, 0, 0.25, 0.75, 1], 4, tmp_path / "rates.png")
    assert report == {"mean_pass_rate": 0.4, "histogram": [2, 1, 0, 1, 1]}
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["rates.png"]


def test_a_report_beside_the_questions(tmp_path):
    ledger = Ledger()
    ledger.keep()
    ledger.drop("b", "pass rate 0")
    report = report_difficulty(tmp_path / "scored.jsonl", [0.5, 0.0, None], 2, ledger)
    assert report["scored"] == 2 and report["histogram"] == [1, 1, 0] and report["read"] == 2
    assert json.loads((tmp_path / "scored.report.json").read_text()) == report
    assert (tmp_path / "scored.png").exists() and len(list(tmp_path.iterdir())) == 2
    assert report_difficulty(tmp_path / "none.jsonl", [None], 2, ledger)["scored"] == 0
