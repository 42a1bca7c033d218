from sari_jax.report.difficulty import plot_pass_rates


def test_questions_by_attempts_that_were_right(tmp_path):
    told = plot_pass_rates([0, 0, 0.25, 0.75, 1], 4, tmp_path / "rates.png")
    assert told == {"mean_pass_rate": 0.4, "histogram": [2, 1, 0, 1, 1]}
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["rates.png"]
