"""A study without its processes; sweep/test_local.py runs one with them."""

import math
import re

import optuna
import pytest

from sari_jax.errors import InputError
from sari_jax.sweep.results import COLUMNS, FAILED, FINISHED, STOPPED, Results, Row
from sari_jax.sweep.study import Study

FILE = """
from sari_jax.train.config import defaults

def suggest(trial):
    config = defaults()
    config.stage = {stage!r}
    config.optimizer.learning_rate = trial.suggest_float("rate", 1e-6, 1e-2, log=True)
    {more}
    return config
"""


@pytest.fixture
def open_study(tmp_path):
    """A function that opens the folder's study, as one sweep after the other does."""

    def open_one(stage: str = "grpo", more: str = "", storage: str | None = None, out="sweep"):
        file = tmp_path / "sweep.py"
        file.write_text(FILE.format(stage=stage, more=more))
        (tmp_path / out).mkdir(exist_ok=True)
        results = Results(tmp_path / out)
        study = Study(file, tmp_path / out, storage, results)
        study.recall()
        return study, results

    return open_one


def trials(tmp_path):
    storage = f"sqlite:///{tmp_path / 'sweep/study.db'}"
    return optuna.load_study(study_name="sweep", storage=storage).trials


def row(run, state, **figures):
    return Row(name=run.name, state=state, settings=run.settings, **figures)


def test_the_study_records_the_results_of_trials(open_study, tmp_path):
    study, _ = open_study()
    runs = list(study.runs(4))
    assert [run.name for run in runs] == [f"trial-{n}" for n in range(4)]
    study.record(row(runs[0], FINISHED, reward=1.5, held_out=0.25))
    study.record(row(runs[1], FINISHED, reward=1.5))
    study.record(row(runs[2], FAILED, reward=9.0, reason="killed"))
    study.record(row(runs[3], FINISHED, reward=math.nan))
    found = trials(tmp_path)
    assert [trial.value for trial in found] == [0.25, 1.5, None, None]
    assert [trial.state.name for trial in found] == ["COMPLETE", "COMPLETE", "FAIL", "FAIL"]
    rates = [run.run.optimizer.learning_rate for run in runs]
    assert rates == [trial.params["rate"] for trial in found]


def test_another_study_of_the_file_tries_the_same(open_study, tmp_path):
    tried = []
    for out, parts in (("sweep", (4,)), ("again", (1, 2, 4)), ("shared", (3, 4))):
        storage = f"sqlite:///{tmp_path / 'shared.db'}" if out == "shared" else None
        runs = []
        for count in parts:  # each goes on where the one before it ended
            study, _ = open_study(out=out, storage=storage)
            for run in study.runs(count):
                runs.append(run)
                study.record(row(run, FINISHED, reward=run.run.optimizer.learning_rate))
        tried.append([run.run.optimizer.learning_rate for run in runs])
    assert len(set(tried[0])) == 4 and tried[0] == tried[1] == tried[2]


def test_a_storage_that_goes_away_is_no_fault_of_a_suggestion(open_study, monkeypatch):
    study, results = open_study()
    monkeypatch.setattr(study._study, "ask", lambda: 1 / 0)
    with pytest.raises(InputError, match="--storage sqlite:.*ZeroDivisionError"):
        list(study.runs(3))
    assert results.rows == {}


def test_a_trial_is_asked_for_when_there_is_room_for_it_and_n_is_of_all_sweeps(
    open_study, tmp_path
):
    runs = open_study()[0].runs(3)
    first = next(runs)
    assert len(trials(tmp_path)) == 1
    study, _ = open_study()
    again = study.runs(3)
    assert next(again) == first  # its end was not recorded
    study.record(row(first, STOPPED))
    study.record(row(next(again), FINISHED, reward=0.0))
    last = open_study()[0].runs(3)
    assert [run.name for run in last] == ["trial-0", "trial-2"]
    assert len(trials(tmp_path)) == 3


def test_ended_trials_stand_in_the_table_of_the_next_sweep(open_study, tmp_path):
    study, _ = open_study()
    runs = list(study.runs(3))
    study.record(row(runs[0], FINISHED, reward=1.0))
    runs[1].log.write_text("one line\nsari: no such file\n")
    study.record(row(runs[1], FAILED))
    _, results = open_study()
    rows = {name: (one.state, one.reason) for name, one in results.rows.items()}
    assert rows == {"trial-0": (FINISHED, ""), "trial-1": (FAILED, "no such file")}


def test_trials_of_other_folders_in_one_storage_are_left_alone(open_study, tmp_path):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    (tmp_path / "b").mkdir()
    (here, _), (there, _) = open_study(storage=storage), open_study(storage=storage, out="b/sweep")
    mine, theirs = next(here.runs(2)), next(there.runs(2))
    assert [mine.name, theirs.name] == ["trial-0", "trial-1"]
    here.record(row(mine, FINISHED, reward=1.0))
    assert open_study(storage=storage, out="b/sweep")[1].rows == {}
    assert next(there.runs(2)).name == "trial-1"


def test_a_folder_may_be_renamed_and_no_trial_of_another_study_is_overwritten(open_study, tmp_path):
    study, _ = open_study(more="config.steps = trial.number")
    study.record(row(next(study.runs(3)), FINISHED, reward=1.0))  # trial 0 has no steps
    (tmp_path / "sweep").rename(tmp_path / "renamed")
    (tmp_path / "renamed/trial-of-mine.json").write_text("{}")  # which no study has written
    study, results = open_study(out="renamed")
    assert {name: one.state for name, one in results.rows.items()} == {
        "trial-0": FAILED,
        "trial-1": FINISHED,
    }
    assert next(study.runs(3)).name == "trial-2"
    before = (tmp_path / "renamed/trial-1.json").read_text()
    for _ in range(2):
        with pytest.raises(InputError, match="renamed/trial-.*: is a trial of another study"):
            open_study(out="renamed", storage=f"sqlite:///{tmp_path / 'other.db'}")
    assert (tmp_path / "renamed/trial-1.json").read_text() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("config.steps = 0", "run trial-0: config: steps = 0 must be at least 1"),
        ("config.stepps = 5", "run trial-0: config: unknown key stepps; did you mean 'steps'"),
        ("config.stage = 'sft'", "run trial-0: SFT has no reward to compare runs by"),
        ("config.grpo.stepps()", "sweep.py: suggest: AttributeError: .*stepps"),
        ("return 3", "run trial-0: int is not a ConfigDict"),
    ],
)
def test_a_suggestion_that_cannot_be_used_fails_alone(more, message, open_study, tmp_path):
    study, results = open_study(more=more)
    assert list(study.runs(2)) == []
    assert [trial.state.name for trial in trials(tmp_path)] == ["FAIL", "FAIL"]
    reasons = [(row.state, row.reason) for row in results.rows.values()]
    assert re.search(message, reasons[0][1]) and [state for state, _ in reasons] == [FAILED] * 2
    assert all(len(reason.splitlines()) == 1 for _, reason in reasons)
    header = (tmp_path / "sweep/results.csv").read_text().splitlines()[0].split(",")
    assert header == ["name", *COLUMNS]  # and no setting, of which they have none
    again, results = open_study(more=more)
    assert [row.reason for row in results.rows.values()] == [reason for _, reason in reasons]
    with pytest.raises(InputError, match="trial-4|sweep.py"):  # the third in a row
        next(again.runs(9))


def test_another_is_asked_for_in_its_place(open_study, tmp_path):
    study, results = open_study(more="config.steps = trial.number % 2")
    assert [run.name for run in study.runs(4)] == ["trial-1", "trial-3"]
    assert list(results.rows) == ["trial-0", "trial-2"]


def test_a_storage_that_cannot_be_used(open_study):
    for url in ("nonsense", "sqlite:////nowhere/at/all.db"):
        with pytest.raises(InputError, match=f"--storage {url}: ") as found:
            open_study(storage=url)
        assert len(str(found.value).splitlines()) == 1
