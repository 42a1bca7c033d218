"""The command line as scripts see it: what it prints, where, and with which exit code."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sari_jax.cli import main

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/sft_nano.py")


@pytest.fixture
def wav(tmp_path) -> Path:
    path = tmp_path / "tone.wav"
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(12_000) / 8000)
    soundfile.write(path, tone, 8000)
    return path


@pytest.fixture
def broken(small_model, tmp_path):
    """A function that copies the model directory without its weights."""

    def copy(name: str) -> Path:
        out = tmp_path / name
        shutil.copytree(small_model, out, ignore=shutil.ignore_patterns("*.safetensors"))
        return out

    return copy


def refused(capsys, *words) -> str:
    """The one line on standard error of a command that exits with 2."""
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("sari: ")]
    assert len(lines) == 1 and captured.out == ""
    assert "Traceback" not in captured.err
    return lines[0]


def ask(model, *sounds):
    return ["ask", "--model", model, "--audio", *sounds, "--question", "What is heard?"]


@pytest.mark.tools
def test_ask_answers_as_json(capsys, small_model, wav):
    words = [*ask(small_model, wav), "--choices", "piano", "flute", "--max-tokens", "8", "--json"]
    assert main([str(word) for word in words]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert set(told) == {"prompt", "completion", "token_ids", "sections", "answer", "seconds"}
    assert told["prompt"].count("<|AUDIO|>") == 1 and "flute" in told["prompt"]
    assert 1 <= len(told["token_ids"]) <= 8


@pytest.mark.tools
def test_score_then_eval_then_scoring_alone(capsys, small_model, starter_dir, tmp_path):
    few = tmp_path / "few.jsonl"
    lines = (starter_dir / "test.jsonl").read_text().splitlines()[:5]
    few.write_text("\n".join(lines) + "\n")
    (tmp_path / "audio").symlink_to(starter_dir / "audio")
    common = ["--max-tokens", "6", "--rows", "3", "--json"]

    out = tmp_path / "scored.jsonl"
    words = ["score", "--model", small_model, "--data", few, "--out", out, *common]
    words += ["--attempts", "2"]
    assert main([str(word) for word in words]) == 2  # an untrained model is never right
    assert not out.exists()
    assert "none of 5 questions is left (pass rate 0: 5)" in capsys.readouterr().err

    results = tmp_path / "eval"
    words = ["eval", "--model", small_model, "--benchmark", few, "--out", results, *common]
    assert main([str(word) for word in words]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["rows"] == 5 and scores["benchmark"] == "few"
    assert scores == json.loads((results / "scores.json").read_text())

    again = tmp_path / "again"
    words = [
        "eval",
        "--predictions",
        results / "predictions.json",
        "--benchmark",
        few,
        "--out",
        again,
        "--json",
    ]
    assert main([str(word) for word in words]) == 0
    assert json.loads(capsys.readouterr().out) == scores

    def completions(out, *more):
        words = ["eval", "--model", small_model, "--benchmark", few, *common]
        words += ["--out", tmp_path / out]
        assert main([str(word) for word in [*words, "--temperature", "1", *more]]) == 0
        capsys.readouterr()
        rows = json.loads((tmp_path / out / "predictions.json").read_text())
        return [row["completion"] for row in rows]

    assert completions("a", "--seed", "1") != completions("b", "--seed", "2")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("missing.wav", None, "no such sound file"),
        ("empty.wav", b"", "empty"),
        ("noise.wav", b"RIFF but not really a wave file" * 9, "corrupt"),
        ("bare.raw", b"\0\1" * 9000, "not in a supported format"),
    ],
)
def test_a_sound_file_that_cannot_be_read(capsys, small_model, tmp_path, name, content, told):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    line = refused(capsys, *ask(small_model, path))
    assert name in line and told in line


def test_a_placeholder_typed_into_the_question(capsys, small_model, wav):
    words = ["ask", "--model", small_model, "--audio", wav, "--question", "What is <|AUDIO|>?"]
    assert "2 <|AUDIO|> placeholders for 1 clips" in refused(capsys, *words)


def test_an_unknown_style_names_the_nearest(capsys, small_model, wav):
    assert "structured" in refused(capsys, *ask(small_model, wav), "--style", "structurd")


def test_a_model_with_a_shard_missing(capsys, small_model, broken, wav):
    model = broken("missing")
    weights = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(weights))
    assert "model-00001-of-00002.safetensors is missing" in refused(capsys, *ask(model, wav))


def test_a_model_with_a_shard_cut_off(capsys, small_model, broken, wav):
    model = broken("cut")
    (model / "model.safetensors").write_bytes(
        (small_model / "model.safetensors").read_bytes()[:-100]
    )
    assert "truncated" in refused(capsys, *ask(model, wav))


def test_a_pickle_checkpoint(capsys, broken, wav):
    model = broken("pickle")
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "only safetensors are read" in refused(capsys, *ask(model, wav))


def test_no_model_there(capsys, tmp_path, wav):
    assert "no config.json" in refused(capsys, *ask(tmp_path / "nowhere", wav))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("{broken", ":2: not JSON"),
        ({"answer_index": 9}, "answer_index 9 must be from 0 to"),
    ],
)
def test_a_line_of_questions_that_is_broken(
    capsys, small_model, starter_dir, tmp_path, change, told
):
    first, second, *_ = (starter_dir / "train.jsonl").read_text().splitlines()
    second = change if isinstance(change, str) else json.dumps(json.loads(second) | change)
    data, workdir = tmp_path / "bad.jsonl", tmp_path / "run"
    data.write_text(f"{first}\n{second}\n")
    (tmp_path / "audio").symlink_to(starter_dir / "audio")
    words = ["train", "--config", CONFIG, "--workdir", workdir]
    words += [f"--config.model.path={small_model}"]
    line = refused(capsys, *words, f"--config.data.train={data}")
    assert told in line and "bad.jsonl:2" in line
    assert not workdir.exists()


def test_an_unknown_config_key_names_the_nearest(capsys, tmp_path):
    words = ["train", "--config", CONFIG, "--workdir", tmp_path / "run"]
    line = refused(capsys, *words, "--config.optimizer.learning_rat=1e-3")
    assert "optimizer.learning_rat" in line and "learning_rate" in line
    assert not (tmp_path / "run").exists()


def test_an_output_that_cannot_be_written(capsys, small_model, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    line = refused(capsys, "model", "assemble", "nano", "--out", blocked / "model")
    assert "cannot be written" in line
    full = tmp_path / "full"
    full.mkdir()
    (full / "something").write_text("")
    assert "not empty" in refused(capsys, "model", "assemble", "nano", "--out", full)
    assert [path.name for path in full.iterdir()] == ["something"]


def test_a_place_for_scores_that_cannot_be_written_is_told_before_a_question_is_answered(
    capsys, small_model, starter_dir, tmp_path, monkeypatch
):
    def answered(*_, **__):
        raise AssertionError("answered first")
        yield

    monkeypatch.setattr("sari_jax.evaluate.difficulty.rated", answered)
    out = tmp_path / "nowhere" / "scored.jsonl"
    words = ["score", "--model", small_model, "--data", starter_dir / "test.jsonl", "--out", out]
    assert "cannot be written" in refused(capsys, *words)


@pytest.mark.parametrize(
    ("stage", "override", "told"),
    [
        ("grpo", "data.order=easy_to_hard", "have no pass_rate"),
        ("grpo", "mesh.decode_tensor=3", "decode_tensor"),
        ("sft", "data.style=free", "needs chain_free"),
        ("sft", "data.shapes.prompt_tokens=(8,)", "prompt tokens are more than 8"),
        ("sft", "batch_size=7", "does not divide"),
    ],
)
def test_a_run_that_cannot_begin_leaves_no_workdir(
    capsys, small_model, starter_dir, tmp_path, stage, override, told
):
    data, workdir = tmp_path / "few.jsonl", tmp_path / "run"
    rows = [json.loads(line) for line in (starter_dir / "train.jsonl").read_text().splitlines()]
    for row in rows:
        del row["chain_free"]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[:32]))
    (tmp_path / "audio").symlink_to(starter_dir / "audio")
    words = ["train", "--config", ROOT / f"configs/{stage}_nano.py", "--workdir", workdir]
    words += [f"--config.model.path={small_model}", f"--config.data.train={data}"]
    if stage == "grpo" and "order" not in override:
        words += ["--config.data.order=random"]
    assert told in refused(capsys, *words, f"--config.{override}")
    assert not workdir.exists()


def test_an_unknown_source(capsys, tmp_path):
    line = refused(capsys, "data", "build", "startr", "--out", tmp_path / "x")
    assert "did you mean 'starter'?" in line


@pytest.mark.parametrize(
    "words",
    [
        ["ask", "--model", "x"],
        ["score", "--model", "x", "--data", "y", "--out", "z", "--rows", "0"],
        ["score", "--model", "x", "--data", "y", "--out", "z", "--attempts", "none"],
        ["eval", "--benchmark", "y", "--out", "z", "--max-tokens", "-1"],
        ["model", "assemble", "nano", "--out", "x", "--seed", "-1"],
        ["data", "build", "starter", "--out", "x", "--seed", "-1"],
    ],
)
def test_usage_errors_exit_with_2(words):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("name", "told"),
    [("absent.jsonl", "no such file of records"), ("folder", "a folder; name a file in it")],
)
@pytest.mark.parametrize("key", ["data.train", "held_out.data"])
def test_questions_that_are_not_there(capsys, small_model, starter_dir, tmp_path, key, name, told):
    (tmp_path / "folder").mkdir()
    words = ["train", "--config", CONFIG, "--workdir", tmp_path / "run"]
    words += [f"--config.model.path={small_model}", "--config.held_out.every=2"]
    data = {"data.train": starter_dir / "train.jsonl", "held_out.data": starter_dir / "test.jsonl"}
    data |= {key: tmp_path / name}
    words += [f"--config.{key}={value}" for key, value in data.items()]
    assert told in refused(capsys, *words)
    assert not (tmp_path / "run").exists()
