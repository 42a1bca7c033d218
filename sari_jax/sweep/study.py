"""An Optuna study whose trials are runs: what to try next follows from what came of those before."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
from tqdm import tqdm

from sari_jax.errors import InputError, one_line
from sari_jax.sweep.local import last_words
from sari_jax.sweep.plan import Planned, check_rewards, function_of, planned
from sari_jax.sweep.results import FAILED, FINISHED, Results, Row
from sari_jax.train.flags import read_config_file

PREFIX = "trial-"
UNUSABLE = 3  # suggestions in a row that cannot be used before the study ends


class Unreachable(InputError):
    """The storage cannot be read or written, which is no fault of a suggestion."""


class Study:
    """A sweep's study: the only one of the folder's own database, or the one that is named after the folder in another.

    A run's settings file says which trials are this folder's; others may share the storage.

    Args:
        file: whose `suggest(trial)` gives a trial's ConfigDict.
        storage: a URL as Optuna takes it; the folder's own `study.db` unless given.
        results: the folder's table.

    Raises:
        InputError: the file or the storage cannot be used, or the folder holds trials of another study.
    """

    def __init__(self, file: Path, out: Path, storage: str | None, results: Results):
        self._suggest = function_of(file, "suggest", lambda config: config)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._url = url = storage or f"sqlite:///{out.absolute() / 'study.db'}"
        with self._reached():
            self._study = optuna.create_study(
                storage=url,
                study_name=out.absolute().name if storage else "sweep",
                direction="maximize",
                load_if_exists=True,
            )
            known = {f"{PREFIX}{trial.number}" for trial in self._study.get_trials(deepcopy=False)}
        for kept in out.glob(f"{PREFIX}*.json"):
            number = kept.stem.removeprefix(PREFIX)
            if number.isdecimal() and kept.stem not in known:  # it would be overwritten
                raise InputError(
                    f"{kept}: is a trial of another study than {url} has; name another --out, or that one's --storage"
                )
        self._out, self._shared = out, storage is not None
        self._results = results
        self._under_way: set[str] = set()

    def recall(self) -> None:
        """The trials of this folder that have ended, into its table."""
        for trial in self._trials():
            if trial.state.is_finished() and (run := self._kept(trial.number)):
                if trial.state == optuna.trial.TrialState.COMPLETE:
                    self._results.put(run, FINISHED)
                else:
                    self._results.put(run, FAILED, last_words(run.log))
            elif reason := trial.user_attrs.get("unusable"):
                if not self._shared or trial.user_attrs["folder"] == str(self._out.absolute()):
                    self._results.unusable(f"{PREFIX}{trial.number}", reason)

    def runs(self, count: int) -> Iterator[Planned]:
        """Trials that were under way, then new ones, until `count` in all have ended or are under way.

        A trial for which `suggest` fails, or gives settings that cannot be used, counts as failed.

        Raises:
            InputError: `UNUSABLE` of those in a row, or the storage is away.
        """
        for trial in self._trials():
            under_way = trial.state == optuna.trial.TrialState.RUNNING
            if under_way and (run := self._kept(trial.number)):
                self._under_way.add(run.name)
                yield run
        unusable = 0
        while self._ended() + len(self._under_way) < count:
            try:
                run = self._ask()
            except Unreachable:
                raise
            except InputError as error:
                unusable += 1
                if unusable == UNUSABLE:
                    raise
                tqdm.write(str(error), file=sys.stderr)
                continue
            unusable = 0
            self._under_way.add(run.name)
            yield run

    def tell(self, row: Row) -> None:
        """What came of a run; one that was stopped stays under way.

        The objective is the last held-out accuracy; where none was asked for, the mean reward of the last steps.
        """
        if row.state not in (FINISHED, FAILED):
            return
        number = int(row.name.removeprefix(PREFIX))
        value = row.reward if row.held_out is None else row.held_out
        with self._reached():
            if row.state == FINISHED and value == value:
                self._study.tell(number, value)
            else:
                self._study.tell(number, state=optuna.trial.TrialState.FAIL)
        self._under_way.discard(row.name)  # else it still counts as one of the trials

    def _ask(self) -> Planned:
        with self._reached():
            trial = self._study.ask()
        # By the trial's number: another study, or one that was resumed, tries the same after the same trials.
        self._study.sampler = optuna.samplers.TPESampler(seed=trial.number)
        name = f"{PREFIX}{trial.number}"
        try:
            run = planned(name, self._suggest(trial), self._out)
            if run.run.stage == "sft" and not run.run.held_out.every:
                raise InputError(
                    f"run {name}: SFT has no reward to compare by; set held_out.data and held_out.every"
                )
            check_rewards(run)
            run.write()
        except InputError as error:
            reason = one_line(str(error))
            self._results.unusable(name, reason)
            with self._reached():
                trial.set_user_attr("unusable", reason)
                trial.set_user_attr("folder", str(self._out.absolute()))
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise
        return run

    def _kept(self, number: int) -> Planned | None:
        name = f"{PREFIX}{number}"
        path = self._out / f"{name}.json"
        return planned(name, read_config_file(str(path), []), self._out) if path.exists() else None

    def _ended(self) -> int:
        return sum(trial.state.is_finished() for trial in self._trials())

    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        with self._reached():
            return self._study.get_trials(deepcopy=False)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Whatever the storage's database says, in one line."""
        try:
            yield
        except Exception as error:
            line = (str(error).splitlines() or [""])[0]
            raise Unreachable(f"--storage {self._url}: {type(error).__name__}: {line}") from error
