"""An Optuna study whose trials are runs: the results of earlier runs decide what to try next."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
from tqdm import tqdm

from sari_jax.errors import InputError, one_line
from sari_jax.sweep.local import last_line
from sari_jax.sweep.plan import Planned, check_rewards, function_of, planned
from sari_jax.sweep.results import FAILED, FINISHED, Results, Row
from sari_jax.train.flags import read_config_file

PREFIX = "trial-"
# The study ends after this many suggestions in a row that cannot be used.
UNUSABLE = 3


class Unreachable(InputError):
    """The storage cannot be read or written; no suggestion is to blame."""


class Study:
    """The study of a sweep: the only one in the folder's own database, or one named after the folder in a shared one.

    Several folders may share a storage. A trial belongs to this folder if its settings file is there.

    Args:
        file: a Python file; its `suggest(trial)` returns a trial's ConfigDict.
        storage: a URL that Optuna understands; the folder's own `study.db` unless given.
        results: the folder's table.

    Raises:
        InputError: the file or the storage cannot be used, or the folder holds trials of another study.
    """

    def __init__(self, file: Path, out: Path, storage: str | None, results: Results):
        self._suggest = function_of(file, "suggest", lambda config: config)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        url = storage or f"sqlite:///{out.absolute() / 'study.db'}"
        self._url = url
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
            if number.isdecimal() and kept.stem not in known:
                # A new trial of this number would overwrite it.
                raise InputError(
                    f"{kept}: is a trial of another study than {url} has; name another --out, or that study's --storage"
                )
        self._out = out
        self._shared = storage is not None
        self._results = results
        # Names of trials that were given to the caller and have not ended.
        self._running: set[str] = set()

    def recall(self) -> None:
        """Puts the trials of this folder that have ended into its table."""
        for trial in self._trials():
            if trial.state.is_finished() and (run := self._kept(trial.number)):
                if trial.state == optuna.trial.TrialState.COMPLETE:
                    self._results.put(run, FINISHED)
                else:
                    self._results.put(run, FAILED, last_line(run.log))
            elif reason := trial.user_attrs.get("unusable"):
                if not self._shared or trial.user_attrs["folder"] == str(self._out.absolute()):
                    self._results.unusable(f"{PREFIX}{trial.number}", reason)

    def runs(self, count: int) -> Iterator[Planned]:
        """Yields trials that an earlier sweep left unfinished, then new ones, until there are `count` in all.

        A trial counts as failed if `suggest` fails or returns settings that cannot be used.

        Raises:
            InputError: `UNUSABLE` trials in a row could not be used, or the storage cannot be reached.
        """
        for trial in self._trials():
            unfinished = trial.state == optuna.trial.TrialState.RUNNING
            if unfinished and (run := self._kept(trial.number)):
                self._running.add(run.name)
                yield run
        unusable = 0
        while self._ended() + len(self._running) < count:
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
            self._running.add(run.name)
            yield run

    def record(self, row: Row) -> None:
        """Records the result of a run that finished or failed; a trial whose run was stopped stays unfinished.

        The objective is the last held-out accuracy. Without held-out questions it is the mean reward of the last steps.
        """
        if row.state not in (FINISHED, FAILED):
            return
        number = int(row.name.removeprefix(PREFIX))
        value = row.reward if row.held_out is None else row.held_out
        if row.state == FAILED or value != value:  # NaN
            value = None
        self._end_trial(number, value)
        # After the study knows: if that failed, the trial still counts as one of those running.
        self._running.discard(row.name)

    def _end_trial(self, number: int, value: float | None) -> None:
        """Ends a trial with its objective; None is a failure."""
        state = optuna.trial.TrialState.FAIL if value is None else None
        with self._reached():
            self._study.tell(number, value, state=state)

    def _ask(self) -> Planned:
        with self._reached():
            trial = self._study.ask()
        # Seeded by the trial's number, so that a resumed or repeated study suggests the same after the same trials.
        self._study.sampler = optuna.samplers.TPESampler(seed=trial.number)
        name = f"{PREFIX}{trial.number}"
        try:
            run = planned(name, self._suggest(trial), self._out)
            if run.run.stage == "sft" and not run.run.held_out.every:
                raise InputError(
                    f"run {name}: SFT has no reward to compare runs by; set held_out.data and held_out.every"
                )
            check_rewards(run)
            run.write()
        except InputError as error:
            reason = one_line(str(error))
            self._results.unusable(name, reason)
            with self._reached():
                trial.set_user_attr("unusable", reason)
                trial.set_user_attr("folder", str(self._out.absolute()))
            self._end_trial(trial.number, None)
            raise
        return run

    def _kept(self, number: int) -> Planned | None:
        """Returns the run of a trial of this folder; None if the trial is another folder's."""
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
        """Raises any error of the storage's database as Unreachable, in one line."""
        try:
            yield
        except Exception as error:
            line = (str(error).splitlines() or [""])[0]
            raise Unreachable(f"--storage {self._url}: {type(error).__name__}: {line}") from error
