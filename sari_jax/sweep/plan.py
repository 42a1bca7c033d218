"""The runs of a sweep's file: checked all together, each with its folder, its settings file and its command."""

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


@dataclasses.dataclass(frozen=True)
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
        """Its settings for tpu_scripts."""
        return self.out / f"{self.name}.env"

    @property
    def command(self) -> list[str]:
        """Of `sari`, after its name."""
        return ["train", "--config", str(self.config), "--workdir", str(self.workdir)]

    @property
    def settings(self) -> dict[str, Any]:
        """By their dotted names."""
        return flat(dataclasses.asdict(self.run))

    @property
    def finished(self) -> bool:
        """Whether its folder holds the last step of a run with these settings, and all that is asked after it.

        A checkpoint appears by its name when it is whole; the held-out questions are answered after that.
        """
        steps = self.run.steps
        return (
            (self.workdir / "checkpoints" / str(steps)).is_dir()
            and not changes(self.workdir, dataclasses.asdict(self.run))
            and (not self.run.held_out.every or steps in examined(self.workdir))
        )

    def write(self) -> None:
        """Its settings file.

        Raises:
            InputError: the folder cannot be written.
        """
        text = json.dumps(dataclasses.asdict(self.run), indent=2)
        with os_errors_as_input_error(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
            write_text(self.config, text + "\n")


def read_runs(file: Path, out: Path, elsewhere: bool = False) -> list[Planned]:
    """What the file's `get_runs()` yields.

    Args:
        elsewhere: whether runs have other file systems, so that their files cannot be looked at here.

    Raises:
        InputError: no such file; one that fails, or has no runs; a name that two of them have or no folder can have;
            settings that cannot be used. The run is named.
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
    _tell_apart(runs)
    # Rewards are the user's own program: each file is run once.
    rewards = {(run.run.grpo.rewards, run.run.grpo.reward_file): run for run in runs}
    for run in () if elsewhere else rewards.values():
        check_rewards(run)
    return runs


def planned(name: str, config: Any, out: Path) -> Planned:
    """A run of this name in the sweep's folder.

    Raises:
        InputError: a name that no folder can have, or settings that cannot be used.
    """
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise InputError(
            f"run {name!r}: a name is 1 to 200 letters, digits and . _ , = + @ -, the first a letter or digit"
        )
    if not isinstance(config, ConfigDict | dict):
        raise InputError(f"run {name}: {type(config).__name__} is not a ConfigDict")
    try:
        return Planned(name, freeze(config), out)
    except InputError as error:
        raise InputError(f"run {name}: {error}") from error


def check_rewards(run: Planned) -> None:
    """
    Raises:
        InputError: the run's reward file cannot be used, or lacks a reward that its settings name.
    """
    try:
        make_scorer(run.run.reward_weights, run.run.grpo.reward_file)
    except InputError as error:
        raise InputError(f"run {run.name}: {error}") from error


def function_of(file: Path, name: str, then: Callable[[Any], Any]) -> Callable[..., Any]:
    """A function of the user's file, which may fail in any way, as one that raises InputError alone.

    Args:
        then: done with what it gives, before it is taken as done: a generator fails as it is walked.

    Raises:
        InputError: no such file or function, or a file that fails.
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


def _tell_apart(runs: Iterable[Planned]) -> None:
    """On file systems that do not tell capitals apart too."""
    seen = dict.fromkeys(RESERVED, "the sweep")
    for one in runs:
        for path in (one.workdir, one.config, one.log, one.slice):
            key = path.name.casefold()
            if key in seen:
                raise InputError(
                    f"run {one.name}: {path.name} is of {seen[key]} already; give each run a name of its own"
                )
            seen[key] = f"run {one.name}"
