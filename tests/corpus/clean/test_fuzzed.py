"""The experiment of the same name, small: `python -m experiments.fuzz` is the whole."""

import time
from collections import Counter
from types import SimpleNamespace

import pytest

from experiments import fuzz
from experiments.fuzz import fuzz_lines, fuzz_sounds


@pytest.mark.tools
def test_damaged_sounds_are_counted_each(tmp_path):
    result = fuzz_sounds(tmp_path, 66, 3)
    assert result["faults"] == [] and result["given"] == 66
    assert 0 < result["kept"] < 66


@pytest.mark.tools
def test_damaged_lines_are_counted_each(tmp_path):
    result = fuzz_lines(tmp_path, 200, 3)
    assert result["faults"] == [] and 0 < result["kept"] < result["given"]


def test_what_a_command_started_ends_with_it(tmp_path, monkeypatch):
    command = tmp_path / "command"
    command.write_text("#!/bin/sh\nsleep 30 &\nwait\n")
    command.chmod(0o755)
    monkeypatch.setattr(fuzz, "sys", SimpleNamespace(executable=str(command)))
    monkeypatch.setattr(fuzz, "PATIENCE", 0.5)
    started = time.monotonic()  # its child holds the pipe open for as long as it lives
    result = fuzz.run(tmp_path, "sounds", b"", 0, Counter())
    assert time.monotonic() - started < 15
    assert "not done after 0.5 s" in result["faults"] and result["exit"] == -9
