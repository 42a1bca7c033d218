"""The experiment of the same name, small: `python -m experiments.fuzz` is the whole."""

from experiments.fuzz import fuzz_lines, fuzz_sounds


def test_damaged_sounds_are_counted_each(tmp_path):
    result = fuzz_sounds(tmp_path, 66, 3)
    assert result["faults"] == [] and result["given"] == 66
    assert 0 < result["kept"] < 66


def test_damaged_lines_are_counted_each(tmp_path):
    result = fuzz_lines(tmp_path, 200, 3)
    assert result["faults"] == [] and 0 < result["kept"] < result["given"]
