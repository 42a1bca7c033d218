import json
from pathlib import Path

import optuna
import pytest

from sari_jax.errors import InputError
from sari_jax.sweep.plan import function_of, planned, read_runs
from sari_jax.train.config import defaults, freeze
from sari_jax.train.flags import read_config_file
from sari_jax.train.workdir import claim

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
START = "from sari_jax.train.config import defaults\n"


def plan(tmp_path, text):
    file = tmp_path / "sweep.py"
    file.write_text(START + text)
    return read_runs(file, tmp_path / "out")


def test_a_run_has_its_folder_its_settings_and_its_command(tmp_path):
    runs = plan(
        tmp_path,
        "def get_runs():\n"
        "    for seed in (0, 1):\n"
        "        config = defaults()\n"
        "        config.seed = seed\n"
        "        yield f'run {seed}'.replace(' ', '='), config\n",
    )
    assert not (tmp_path / "out").exists()
    one = runs[1]
    one.write()
    assert one.command == [
        "train", "--config", f"{tmp_path}/out/run=1.json", "--workdir", f"{tmp_path}/out/run=1",
    ]  # fmt: skip
    assert freeze(read_config_file(one.command[2], [])) == one.run
    assert one.settings["seed"] == 1 and one.settings["optimizer.name"] == "adamw"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_runs(:\n", "sweep.py: SyntaxError"),
        ("import nothing_of_the_kind\n", "sweep.py: ModuleNotFoundError.*nothing_of_the_kind"),
        ("def get_run():\n    return []\n", r"has no get_runs\(\); did you mean 'get_run'"),
        ("def get_runs():\n    yield 'a', defaults()\n    1 / 0\n", "get_runs: ZeroDivisionError"),
        ("def get_runs():\n    return None\n", "get_runs: TypeError"),
        ("def get_runs():\n    return []\n", "yields no run"),
        ("def get_runs():\n    return [defaults()]\n", "not a name and a config"),
        ("def get_runs():\n    return [('a', 1)]\n", "run a: int is not a ConfigDict"),
        ("def get_runs():\n    return [('a/b', defaults())]\n", "run 'a/b': a name is"),
        ("def get_runs():\n    return [('..', defaults())]\n", "run '..': a name is"),
        ("def get_runs():\n    return [('', defaults())]\n", "run '': a name is"),
        (
            "def get_runs():\n    return [('a', defaults())] * 2\n",
            "run a: a already belongs to run a",
        ),
        (
            "def get_runs():\n    return [(n, defaults()) for n in 'aA']\n",
            "run A: A already belongs to run a",
        ),
        (
            "def get_runs():\n    return [(n, defaults()) for n in ('a', 'a.json')]\n",
            "run a.json: a.json already belongs to run a",
        ),
        (
            "def get_runs():\n    return [('results.md', defaults())]\n",
            "results.md already belongs to the sweep",
        ),
        ("def get_runs():\n    yield 'a', {'steps': 0}\n", "run a: config: steps = 0 must be"),
        (
            "def get_runs():\n    yield 'a', defaults()\n    yield 'b', {'optimizer': {'learning_rat': 1}}\n",
            "run b: config: unknown key optimizer.learning_rat; did you mean 'learning_rate'",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_and_nothing_is_written(text, message, tmp_path):
    with pytest.raises(InputError, match=message) as found:
        plan(tmp_path, text)
    assert len(str(found.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] in ([], ["__pycache__"])


def test_the_example_can_be_used(tmp_path):
    file = EXPERIMENTS / "sweep_nano.py"
    runs = read_runs(file, tmp_path)
    assert len(runs) == 8 and runs[-1].name == "learning_rate=0.0003,kl_coefficient=0.03,seed=1"
    chosen = {"learning_rate": 1e-4, "kl_coefficient": 0.05, "temperature": 0.9}
    config = function_of(file, "suggest", lambda config: config)(optuna.trial.FixedTrial(chosen))
    run = planned("trial-0", config, tmp_path).run
    assert (run.optimizer.learning_rate, run.grpo.temperature) == (1e-4, 0.9)


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match="none.py: no such file"):
        read_runs(tmp_path / "none.py", tmp_path)


def test_a_run_is_finished_when_its_last_step_is_kept_and_its_settings_are_the_same(tmp_path):
    config = defaults()
    config.steps = 3
    run = planned("a", config, tmp_path)
    assert not run.finished
    settings = {**config.to_dict(), "fingerprints": {"data": "any"}}
    claim(run.workdir, settings)
    (run.workdir / "checkpoints" / "2").mkdir(parents=True)
    assert not run.finished
    (run.workdir / "checkpoints" / "3").mkdir()
    assert run.finished
    # These say where it ran, and not what it learnt.
    config.mesh.data = 2
    config.data.workers = 3
    assert planned("a", config, tmp_path).finished
    config.seed = 1
    assert not planned("a", config, tmp_path).finished
    assert json.loads((run.workdir / "config.json").read_text())["seed"] == 0


def test_a_run_is_finished_once_it_is_examined(tmp_path):
    """The last checkpoint appears before the held-out questions are answered."""
    config = defaults()
    config.steps, config.held_out.every, config.held_out.data = 3, 2, "questions.jsonl"
    run = planned("a", config, tmp_path)
    claim(run.workdir, config.to_dict())
    (run.workdir / "checkpoints" / "3").mkdir(parents=True)
    rows = run.workdir / "held_out.jsonl"
    rows.write_text('{"step": 2, "accuracy": 0.5}\n')
    assert not run.finished
    rows.write_text(rows.read_text() + '{"step": 3, "accuracy": 0.5}\n')
    assert run.finished


REWARDED = """
from sari_jax.train.config import defaults

def get_runs():
    config = defaults()
    config.stage, config.grpo.reward_file = "grpo", {file!r}
    config.grpo.rewards = ("accuracy=1", "brevty=1")
    yield "a", config
"""


def test_a_missing_reward_is_reported_before_anything_starts(tmp_path):
    (tmp_path / "own.py").write_text("def brevity(completion, record, style):\n    return 1.0\n")
    file = tmp_path / "sweep.py"
    file.write_text(REWARDED.format(file=str(tmp_path / "own.py")))
    with pytest.raises(InputError, match=r"run a: .*has no function brevty\("):
        read_runs(file, tmp_path / "out")
    # Reward files of other machines are not checked here.
    assert len(read_runs(file, tmp_path / "out", elsewhere=True)) == 1
