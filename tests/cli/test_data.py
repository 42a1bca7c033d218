"""`sari data` as scripts see it: what it prints, and with which exit code."""

import json

import pytest

from experiments.samples import write_sample
from sari_jax.cli import main


def refused(capsys, *words) -> str:
    """The one line on standard error of a command that exits with 2."""
    assert main(["data", "build", *map(str, words)]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("sari: ")]
    assert len(lines) == 1 and captured.out == "" and "Traceback" not in captured.err
    return lines[0]


@pytest.fixture
def given(tmp_path):
    path, sounds = write_sample("clotho-aqa", tmp_path / "given")
    return ["--input", str(path), "--audio-root", str(sounds)]


def test_build_tells_its_report_as_json(capsys, tmp_path, given):
    out = tmp_path / "out"
    assert main(["data", "build", "clotho-aqa", "--out", str(out), "--json", *given]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    report = json.loads(line)
    assert report == json.loads((out / "report.json").read_text())
    assert (report["read"], report["kept"]) == (24, 6)
    assert sorted(path.name for path in out.iterdir()) == [
        "dropped.jsonl",
        "records.jsonl",
        "report.json",
    ]


def test_build_hands_on_its_options(capsys, tmp_path, given):
    words = ["--limit", "6", "--seed", "7", "--licence", "of my own", "--json", *given]
    assert main(["data", "build", "clotho-aqa", "--out", str(tmp_path / "out"), *words]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["read"] == 6 and report["licences"] == {"of my own": 2}


def test_a_corpus_that_is_made_takes_sizes(capsys, tmp_path):
    sizes = ["--train", "4", "--validation", "2", "--test", "0"]
    out = tmp_path / "out"
    assert main(["data", "build", "starter", "--out", str(out), "--json", *sizes]) == 0
    report = json.loads(capsys.readouterr().out)
    counts = {name: split["questions"] for name, split in report["splits"].items()}
    assert counts == {"train": 4, "validation": 2, "test": 0}


def test_what_is_refused(capsys, tmp_path, given):
    out = ["--out", tmp_path / "out"]
    assert "did you mean 'musicbench'" in refused(capsys, "musicbensh", *out)
    assert "did you mean 'starter'" in refused(capsys, "startr", *out)
    told = refused(capsys, "avqa", *out)
    assert "name --input" in told and "train_qa.json of AVQA" in told
    assert "no such file" in refused(capsys, "avqa", *out, "--input", tmp_path / "absent.json")
    assert "takes no --train" in refused(capsys, "avqa", *out, *given, "--train", "4")
    assert "takes no --audio-root" in refused(capsys, "starter", *out, "--audio-root", "x")
    assert "has no column Utterance" in refused(capsys, "meld", *out, *given)
    assert "none of 24 rows can be used" in refused(
        capsys, "clotho-aqa", *out, *given[:3], tmp_path
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--limit", "0"], ["--train", "-1"], ["--seed", "x"]])
def test_usage_errors_exit_with_2(words):
    with pytest.raises(SystemExit) as stopped:
        main(["data", "build", "avqa", "--out", "x", *words])
    assert stopped.value.code == 2
