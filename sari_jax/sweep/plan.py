"""Reads and checks the runs of a sweep's file; each has a folder, a settings file and a command."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sari_jax.atomic import os_errors_as_input_error, write_text
from sari_jax.errors import InputError
from sari_jax.rl.rewards.registry import make_scorer
from sari_jax.settings import nearest
from sari_jax.train.config import Run, freeze
from sari_jax.train.metrics import examined
from sari_jax.train.workdir import changes, flat
from sari_jax.user_file import failing_as, load

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,=+@-]{0,199}")
RESERVED = ("results.csv", "results.md", "report.html", "study.db", "lock")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """One run of a sweep.

    Attributes:
        out: the sweep's folder.
    """

    name: str
    run: Run
    out: Path

    @property
    def workdir(self) -> Path:
        return self.out / self.name

    @property
    def config(self) -> Path:
        return self.out / f"{self.name}.json"

    @property
    def log(self) -> Path:
        return self.out / f"{self.name}.log"

    @property
    def slice(self) -> Path:
        """The file of the run's settings for tpu_scripts."""
        return self.out / f"{self.name}.env"

    @property
    def command(self) -> list[str]:
        """The arguments of `sari` that train the run."""
        return ["train", "--config", str(self.config), "--workdir", str(self.workdir)]

    @property
    def settings(self) -> dict[str, Any]:
        """The run's settings by their dotted names."""
        return flat(dataclasses.asdict(self.run))

    @property
    def finished(self) -> bool:
        """Whether the folder holds the last step of a run with these settings, and its last held-out evaluation.

        A checkpoint gets its name once it is complete; the held-out questions are answered after that.
        """
        steps = self.run.steps
        return (
            (self.workdir / "checkpoints" / str(steps)).is_dir()
            and not changes(self.workdir, dataclasses.asdict(self.run))
            and (not self.run.held_out.every or steps in examined(self.workdir))
        )

    def write(self) -> None:
        """Writes the run's settings file.

        Raises:
            InputError: the folder cannot be written.
        """
        text = json.dumps(dataclasses.asdict(self.run), indent=2)
        with os_errors_as_input_error(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
            write_text(self.config, text + "\n")


def read_runs(file: Path, out: Path, elsewhere: bool = False) -> list[Planned]:
    """Reads the runs that the file's `get_runs()` yields.

    Args:
        elsewhere: whether the runs have other file systems, so that their files cannot be checked here.

    Raises:
        InputError: the file does not exist, fails or yields no run; two runs have one name; a run's name or settings
            cannot be used. The message names the run.
    """
    pairs = function_of(file, "get_runs", list)()
    if not pairs:
        raise InputError(f"{file}: get_runs() yields no run")
    runs = []
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise InputError(
                f"{file}: get_runs() yields {type(pair).__name__}, not a name and a config"
            )
        runs.append(planned(*pair, out))
    _check_names(runs)
    # A reward file is the user's own program, so each is run only once.
    rewards = {(run.run.grpo.rewards, run.run.grpo.reward_file): run for run in runs}
    for run in () if elsewhere else rewards.values():
        check_rewards(run)
    return runs


def planned(name: str, config: Any, out: Path) -> Planned:
    """Makes a run of this name in the sweep's folder.

    Raises:
        InputError: no folder can have the name, or the settings cannot be used.
    """
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise InputError(
            f"run {name!r}: a name is 1 to 200 letters, digits and . _ , = + @ -, and starts with a letter or digit"
        )
    if not isinstance(config, ConfigDict | dict):
        raise InputError(f"run {name}: {type(config).__name__} is not a ConfigDict")
    try:
        return Planned(name=name, run=freeze(config), out=out)
    except InputError as error:
        raise InputError(f"run {name}: {error}") from error


def check_rewards(run: Planned) -> None:
    """Checks that the run's rewards can be loaded.

    Raises:
        InputError: the reward file cannot be used, or lacks a reward that the settings name.
    """
    try:
        make_scorer(run.run.reward_weights, run.run.grpo.reward_file)
    except InputError as error:
        raise InputError(f"run {run.name}: {error}") from error


def function_of(file: Path, name: str, then: Callable[[Any], Any]) -> Callable[..., Any]:
    """Returns a function of the user's file that raises InputError, whatever it fails with.

    Args:
        then: is applied to the function's result within the same guard, since a generator fails only when it is walked.

    Raises:
        InputError: the file or the function does not exist, or the file fails.
    """
    module = load(file, "sweep_file", str(file))
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value)]
        raise InputError(f"{file}: has no {name}(); {nearest(name, known)}")

    def call(*args: Any) -> Any:
        with failing_as(f"{file}: {name}"):
            return then(function(*args))

    return call


def _check_names(runs: Iterable[Planned]) -> None:
    """Raises InputError if two runs share a path, also on a file system that ignores case."""
    seen = dict.fromkeys(RESERVED, "the sweep")
    for one in runs:
        for path in (one.workdir, one.config, one.log, one.slice):
            key = path.name.casefold()
            if key in seen:
                raise InputError(
                    f"run {one.name}: {path.name} already belongs to {seen[key]}; give each run a name of its own"
                )
            seen[key] = f"run {one.name}"
