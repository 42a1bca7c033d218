import json

import pytest

from sari_jax.errors import InputError
from sari_jax.report.experiment import differing, read_experiment


def workdir(path, rows=1, **settings):
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"stage": "grpo", **settings}))
    lines = [json.dumps({"step": step + 1, "reward": 0.5}) for step in range(rows)]
    (path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 9, "rew']))
    return path


def test_a_run_under_way_is_read_as_far_as_it_is_whole(tmp_path):
    (run,) = read_experiment([workdir(tmp_path / "a", 2)]).runs
    assert run.name == "a" and run.stage == "grpo"
    assert [row["step"] for row in run.metrics] == [1, 2]
    assert run.samples == run.questions == run.held_out == []


def test_folders_of_one_name_are_shown_with_their_parents(tmp_path):
    folders = [workdir(tmp_path / parent / "run") for parent in ("x", "y")]
    assert [run.name for run in read_experiment(folders).runs] == ["x/run", "y/run"]
    with pytest.raises(InputError, match="x/run: is named twice"):
        read_experiment([folders[1], folders[0], folders[0]])


def test_settings_in_which_runs_differ(tmp_path):
    optimizer = [{"learning_rate": rate, "name": "muon"} for rate in (1e-3, 2e-3)]
    folders = [workdir(tmp_path / str(i), optimizer=optimizer[i], seed=0) for i in (0, 1)]
    runs = read_experiment(folders).runs
    assert differing(runs) == {"optimizer.learning_rate": ["0.001", "0.002"]}
    assert differing(runs[:1]) == {}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has neither config.json nor scores.json"),
        ({"config.json": "{}"}, "no step is trained yet"),
        ({"config.json": "[]", "metrics.jsonl": '{"step": 1}\n'}, "not readable as a JSON object"),
        ({"scores.json": "{"}, "not readable as a JSON object"),
    ],
)
def test_a_folder_that_cannot_be_shown(files, message, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_experiment([tmp_path])
    assert str(tmp_path) in str(error.value)
