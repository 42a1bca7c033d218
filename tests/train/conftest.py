"""A small model, its questions, and runs of it that nothing disturbed."""

import functools
from pathlib import Path

import pytest
from runs import command, finish, sari


@pytest.fixture(scope="session")
def small_model(tmp_path_factory) -> Path:
    """nano's files and formats with a decoder that compiles in seconds."""
    from sari_jax.assemble import NanoSize, assemble

    out = tmp_path_factory.mktemp("models") / "small"
    assemble("nano", out, size=NanoSize(width=32, layers=2, heads=2, kv_heads=2, ffn=48))
    return out


@pytest.fixture(scope="session")
def scored(starter_dir, tmp_path_factory) -> Path:
    """A few training questions with made-up pass rates, one of them hopeless.

    So few that a run walks them three times: later epochs take the tower's output from memory, a resumed run computes
    it anew, in other batches than those it was first computed in.
    """
    import dataclasses

    from sari_jax.data.records import read_records, write_records

    records = read_records(starter_dir / "train.jsonl")[:9]
    rated = [dataclasses.replace(record, pass_rate=i / 8) for i, record in enumerate(records)]
    out = tmp_path_factory.mktemp("scored") / "scored.jsonl"
    write_records(out, rated)
    return out


@pytest.fixture(scope="session")
def whole(request, scored, tmp_path_factory):
    """A function that gives the workdir of a run that nothing disturbed; read only."""

    @functools.cache
    def run(stage: str, family: str) -> Path:
        workdir = tmp_path_factory.mktemp("whole") / f"{stage}-{family}"
        done = finish(command(stage, request.getfixturevalue(family), scored, workdir))
        assert done.returncode == 0, done.stderr[-2000:]
        return workdir

    return run


@pytest.fixture(scope="session")
def answering(small_model, scored, tmp_path_factory) -> Path:
    """The small model after a few steps: it knows the form of an answer, so that groups differ in their rewards."""
    folder = tmp_path_factory.mktemp("answering")
    changes = {
        "steps": 30,
        "data.style": "direct",
        "data.shapes.answer_tokens": "(16,)",
        "optimizer.learning_rate": 0.02,
        "samples_every": 99,
        "checkpoint.every": 30,
    }
    overrides = [f"--config.{key}={value}" for key, value in changes.items()]
    for words in (
        command("sft", small_model, scored, folder / "run", *overrides),
        sari("export", "--workdir", folder / "run", "--out", folder / "model"),
    ):
        done = finish(words)
        assert done.returncode == 0, done.stderr[-2000:]
    return folder / "model"
