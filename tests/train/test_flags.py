import dataclasses
import json
from pathlib import Path

import pytest

from sari_jax.errors import InputError
from sari_jax.train.config import freeze
from sari_jax.train.flags import read_config_file

FOLDER = Path(__file__).parent.parent.parent / "configs"
# The settings of bench.py are of another kind.
CONFIGS = sorted(path for path in FOLDER.glob("*.py") if path.stem != "bench")
NANO = str(FOLDER / "sft_nano.py")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_complete_and_says_how_to_run_it(path):
    argument = ":qwen2_audio_7b" if path.stem in ("sft", "grpo") else ""
    run = freeze(read_config_file(f"{path}{argument}", []))
    assert path.name.startswith(run.stage)
    assert f"sari train --config configs/{path.name}{argument} " in path.read_text()


def test_overrides_reach_the_run():
    changes = [
        "--config.optimizer.learning_rate=2e-6",
        "--config.seed=3",
        "--config.data.style=free",
    ]
    run = freeze(read_config_file(NANO, changes))
    assert (run.optimizer.learning_rate, run.seed, run.data.style) == (2e-6, 3, "free")


def test_of_a_setting_given_twice_the_last_counts():
    twice = ["--config.grpo.rewards=('accuracy=1',)", "--config.seed=3", "--config.seed=4"]
    config = read_config_file(NANO, [*twice, "--config.grpo.rewards=('format=1',)"])
    assert config.grpo.rewards == ("format=1",) and config.seed == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.optimizer.learning_rat=1", "did you mean 'learning_rate'"),
        ("--config.optimiser.b1=1", "did you mean 'optimizer'"),
        ("--config.steps.x=1", "unknown key steps.x"),
        ("--config.steps=many", "config:"),
        ("--steps=3", "reads --config.KEY=VALUE"),
        ("stray", "reads --config.KEY=VALUE"),
    ],
)
def test_bad_overrides(override, message):
    with pytest.raises(InputError, match=message):
        read_config_file(NANO, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", "SyntaxError"),
        ("import nothing_of_the_kind\n", "ModuleNotFoundError.*nothing_of_the_kind"),
        ("def get_config():\n    raise ValueError('not today')\n", "not today"),
        (
            "from sari_jax.train.config import defaults\n\n"
            "def get_config():\n    config = defaults()\n    config.optimzer.b1 = 1.0\n    return config\n",
            "optimzer",
        ),
        ("seed = 1\n", "get_config"),
        ("def get_config():\n    return 1\n", "returns int, not ConfigDict"),
    ],
)
@pytest.mark.parametrize("overrides", [[], ["--config.seed=1"]])
def test_a_config_file_that_fails(text, message, overrides, tmp_path):
    path = tmp_path / "failing.py"
    path.write_text(text)
    with pytest.raises(InputError, match=f"failing.py: .*{message}") as found:
        read_config_file(str(path), overrides)
    assert len(str(found.value).splitlines()) == 1


def test_settings_in_json_are_the_run_they_were_written_from(tmp_path):
    run = freeze(read_config_file(NANO, []))
    path = tmp_path / "seed=1,b.json"
    path.write_text(json.dumps(dataclasses.asdict(run)))
    assert freeze(read_config_file(str(path), [])) == run
    changes = ["--config.data.shapes.answer_tokens=(16,)", "--config.optimizer.learning_rate=1"]
    changed = freeze(read_config_file(str(path), changes))
    assert changed.data.shapes.answer_tokens == (16,) and changed.optimizer.learning_rate == 1.0
    with pytest.raises(InputError, match="did you mean 'learning_rate'"):
        read_config_file(str(path), ["--config.optimizer.learning_rat=1"])


@pytest.mark.parametrize("text", ["{", "[1]", "", "\x00"])
def test_json_that_is_no_object(text, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match="a.json: .*not (a )?JSON"):
        read_config_file(str(path), [])


def test_no_such_file():
    with pytest.raises(InputError, match="configs/none.py: no such config file"):
        read_config_file("configs/none.py", [])


def test_an_argument_reaches_the_file(tmp_path):
    path = tmp_path / "two.py"
    path.write_text(
        "from sari_jax.train.config import defaults\n\n"
        "def get_config(arg='1'):\n    config = defaults()\n    config.seed = int(arg)\n    return config\n"
    )
    assert read_config_file(str(path), []).seed == 1
    assert read_config_file(f"{path}:7", []).seed == 7
    assert read_config_file(f"{path}:7", ["--config.seed=8"]).seed == 8
    with pytest.raises(InputError, match="two.py:x: ValueError: invalid literal"):
        read_config_file(f"{path}:x", [])


def test_an_argument_that_nothing_takes(tmp_path):
    with pytest.raises(InputError, match="sft_nano.py takes no argument; leave out ':lora'"):
        read_config_file(f"{NANO}:lora", [])
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match="a JSON file takes no argument; leave out ':lora'"):
        read_config_file(f"{tmp_path}/a.json:lora", [])
