"""What a workdir remembers of its run. Saving and restoring are tested by train/test_loop.py."""

import dataclasses
import shutil

import pytest

from sari_jax.errors import InputError
from sari_jax.train.checkpoint import claim, fingerprints, read_run
from sari_jax.train.config import Data, Model, Optimizer, Run


@pytest.fixture
def run(one_tiny, tmp_path) -> Run:
    shutil.copytree(one_tiny.directory, tmp_path / "model")
    (tmp_path / "questions.jsonl").write_text("{}\n")
    return Run(
        model=Model(str(tmp_path / "model")), data=Data(train=str(tmp_path / "questions.jsonl"))
    )


def settings(run):
    return {**dataclasses.asdict(run), "fingerprints": fingerprints(run)}


def test_settings_come_back(run, tmp_path):
    claim(tmp_path / "run", settings(run))
    claim(tmp_path / "run", settings(run))
    path = tmp_path / "run" / "config.json"  # of a time before a setting came
    path.write_text(path.read_text().replace('  "micro_batches": 1,\n', ""))
    assert "micro_batches" not in path.read_text()
    claim(tmp_path / "run", settings(run))
    with pytest.raises(InputError, match="another micro_batches"):
        claim(tmp_path / "run", settings(dataclasses.replace(run, micro_batches=2)))
    assert read_run(tmp_path / "run") == run


def test_a_changed_setting_is_named_in_full(run, tmp_path):
    claim(tmp_path / "run", settings(run))
    other = dataclasses.replace(run, optimizer=Optimizer(b1=0.5))
    with pytest.raises(InputError, match="another optimizer.b1;"):
        claim(tmp_path / "run", settings(other))


@pytest.mark.parametrize("place", [0, -1])
def test_another_model_behind_the_same_path(run, tmp_path, place):
    claim(tmp_path / "run", settings(run))
    weights = tmp_path / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[place] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match="another fingerprints.model;"):
        claim(tmp_path / "run", settings(run))
    with pytest.raises(InputError, match="not the model that .*run was started from"):
        read_run(tmp_path / "run")


def test_other_questions_behind_the_same_path(run, tmp_path):
    claim(tmp_path / "run", settings(run))
    (tmp_path / "questions.jsonl").write_text("{}\n{}\n")
    with pytest.raises(InputError, match="another fingerprints.data;"):
        claim(tmp_path / "run", settings(run))


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_settings_cut_short(run, tmp_path, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(text)
    for read in (read_run, lambda workdir: claim(workdir, settings(run))):
        with pytest.raises(InputError, match="not the settings of a run"):
            read(tmp_path / "run")
