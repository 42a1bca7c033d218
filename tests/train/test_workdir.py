"""What a workdir remembers of its run's settings, and which of them may change."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from sari_jax.data.roster import Entry, write_roster
from sari_jax.errors import InputError
from sari_jax.train.config import Data, Grpo, Mesh, Model, Optimizer, Run, defaults, freeze
from sari_jax.train.workdir import changes, claim, fingerprints, read_run, roster_of

ROSTER = [
    Entry(id="q1", digest="d1", source="here"),
    Entry(id="q2", digest="d2", source="here", pass_rate=0.5, length=16_000),
]


@pytest.fixture
def run(one_tiny, tmp_path) -> Run:
    shutil.copytree(one_tiny.directory, tmp_path / "model")
    (tmp_path / "questions.jsonl").write_text("{}\n")
    return Run(
        model=Model(path=str(tmp_path / "model")),
        data=Data(train=str(tmp_path / "questions.jsonl")),
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


def test_a_setting_of_another_version_is_refused(run, tmp_path):
    """Otherwise the default of its new name would take its place."""
    claim(tmp_path, settings(run))
    path = tmp_path / "config.json"
    kept = json.loads(path.read_text())
    kept["grpo"]["completions"] = kept["grpo"].pop("num_completions")
    path.write_text(json.dumps(kept))
    for go_on in (lambda: claim(tmp_path, settings(run)), lambda: read_run(tmp_path)):
        with pytest.raises(InputError, match=r"grpo\.completions"):
            go_on()


def test_other_rewards_behind_the_same_path(run, tmp_path):
    own = tmp_path / "own.py"
    own.write_text("def brevity(completion, record, style):\n    return 1.0\n")
    run = dataclasses.replace(run, grpo=Grpo(rewards=("brevity=1",), reward_file=str(own)))
    claim(tmp_path / "run", settings(run))
    claim(tmp_path / "run", settings(run))
    own.write_text("def brevity(completion, record, style):\n    return 2.0\n")
    with pytest.raises(InputError, match="another fingerprints.rewards;"):
        claim(tmp_path / "run", settings(run))
    own.unlink()
    with pytest.raises(InputError, match=r"own\.py: no such file"):
        fingerprints(run)


def test_a_changed_setting_is_named_in_full(run, tmp_path):
    claim(tmp_path / "run", settings(run))
    other = dataclasses.replace(run, optimizer=Optimizer(b1=0.5))
    with pytest.raises(InputError, match="another optimizer.b1;"):
        claim(tmp_path / "run", settings(other))


def changed(run, **changes):
    """The run with settings changed by their dotted names."""
    values = defaults()
    values.update(dataclasses.asdict(run))
    for key, value in changes.items():
        part, _, name = key.rpartition("__")
        setattr(getattr(values, part) if part else values, name, value)
    return freeze(values)


def test_what_changes_nothing_that_was_computed_may_change(run, tmp_path):
    workdir = tmp_path / "run"
    claim(workdir, settings(run), ROSTER)
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("{}\n")
    other = changed(
        run,
        **{"steps": 200, "samples_every": 3, "max_skipped": 1, "checkpoint__every": 7},
        **{"checkpoint__keep": 5, "held_out__every": 4, "held_out__data": str(held_out)},
        **{"held_out__limit": 9, "data__workers": 2, "data__max_bad_fraction": 0.5},
        **{"data__keep_features_gb": 1.0, "model__reference_memory": "host"},
    )
    other = dataclasses.replace(other, mesh=Mesh(fsdp=2, tensor=4))
    claim(workdir, settings(other))
    assert read_run(workdir) == other  # and the folder says so from now on


def test_a_larger_shape_may_follow_and_none_may_come_between(run, tmp_path):
    workdir, shapes = tmp_path / "run", run.data.shapes
    claim(workdir, settings(run), ROSTER)
    larger = dataclasses.replace(shapes, answer_tokens=(*shapes.answer_tokens, 1024))
    claim(
        workdir,
        settings(dataclasses.replace(run, data=dataclasses.replace(run.data, shapes=larger))),
    )
    for sizes in ((64, 128, 192, 256, 512, 1024), (64, 128), (2048,)):
        other = dataclasses.replace(shapes, answer_tokens=sizes)
        other = dataclasses.replace(run, data=dataclasses.replace(run.data, shapes=other))
        with pytest.raises(
            InputError, match="data.shapes.answer_tokens; add shapes after the largest"
        ):
            claim(workdir, settings(other))


def test_more_steps_need_a_schedule_that_does_not_count_them(run, tmp_path):
    cosine = changed(run, optimizer__schedule="cosine")
    claim(tmp_path / "run", settings(cosine), ROSTER)
    with pytest.raises(InputError, match="another steps; its cosine schedule is laid out over all"):
        claim(tmp_path / "run", settings(dataclasses.replace(cosine, steps=101)))


def test_a_model_and_data_may_move(run, tmp_path):
    workdir = tmp_path / "run"
    claim(workdir, settings(run), ROSTER)
    shutil.move(tmp_path / "model", tmp_path / "elsewhere")
    shutil.move(tmp_path / "questions.jsonl", tmp_path / "moved.jsonl")
    with pytest.raises(InputError, match="name where it is with --model"):
        read_run(workdir)
    assert read_run(workdir, tmp_path / "elsewhere").model.path == str(tmp_path / "elsewhere")
    moved = changed(
        run, model__path=str(tmp_path / "elsewhere"), data__train=str(tmp_path / "moved.jsonl")
    )
    claim(workdir, settings(moved))
    assert read_run(workdir) == moved
    # A path alone, without a digest of what is there, tells a run from another.
    assert set(changes(workdir, dataclasses.asdict(run))) == {"model.path", "data.train"}


def test_data_may_be_mended_where_there_is_a_roster(run, tmp_path):
    claim(tmp_path / "run", settings(run), ROSTER)
    assert roster_of(tmp_path / "run") == ROSTER
    (tmp_path / "questions.jsonl").write_text("{}\n{}\n")
    claim(tmp_path / "run", settings(run))


def test_a_roster_without_settings_is_no_run(run, tmp_path):
    """One that was killed between the two."""
    write_roster(tmp_path, ROSTER)
    assert roster_of(tmp_path) is None


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


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "[" * 100_000], ids=["empty", "cut", "list", "deep"]
)
def test_settings_cut_short(run, tmp_path, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(text)
    for read in (read_run, lambda workdir: claim(workdir, settings(run))):
        with pytest.raises(InputError, match="not the settings of a run"):
            read(tmp_path / "run")


def test_another_tokenizer_template_or_end_is_another_model(run, tmp_path):
    model = Path(run.model.path)
    claim(tmp_path / "run", settings(run))
    moved = tmp_path / "moved"
    shutil.copytree(model, moved)
    there = dataclasses.replace(run, model=dataclasses.replace(run.model, path=str(moved)))
    claim(tmp_path / "run", settings(there))
    (moved / "generation_config.json").write_text('{"eos_token_id": 1}')
    with pytest.raises(InputError, match="another fingerprints.prompts;"):
        claim(tmp_path / "run", settings(there))
    before = json.loads((tmp_path / "run/config.json").read_text())
    del before["fingerprints"]["prompts"]  # of a run from before this was told apart
    (tmp_path / "run/config.json").write_text(json.dumps(before))
    claim(tmp_path / "run", settings(there))
