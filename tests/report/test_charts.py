import inspect
import math
import re

import numpy as np
import pytest

from sari_jax.report.charts import (
    PARTS,
    Line,
    before_and_after,
    line,
    make_charts,
    moving_average,
)
from sari_jax.report.experiment import Experiment, Result, Run
from sari_jax.train import grpo, sft


def run(name="a", **rows):
    rows = {"metrics": [], "questions": [], "samples": [], "held_out": []} | rows
    return Run(name=name, settings={"stage": "grpo"}, **rows)


def test_moving_average_looks_back_only():
    np.testing.assert_allclose(moving_average(np.array([1.0, 3.0, 5.0, 9.0]), 2), [1, 2, 4, 7])
    np.testing.assert_allclose(moving_average(np.array([1.0, 3.0]), 1), [1, 3])
    np.testing.assert_allclose(moving_average(np.array([2.0, 4.0]), 9), [2, 3])


def test_a_line_holds_finite_values_only():
    rows = [{"step": 1}, {"step": 2, "loss": math.nan}, {"step": 3, "loss": 1.0}]
    found = line(rows, "loss", "a")
    assert found.steps.tolist() == [3] and found.values.tolist() == [1]
    assert line(rows, "reward", "a") is None


def test_a_long_line_is_averaged_and_ends_where_it_ended():
    rows = [{"step": step, "loss": float(step)} for step in range(1, 2502)]
    found = line(rows, "loss", "a")
    assert len(found.steps) == 834 and found.steps[-1] == 2501
    assert found.values[0] == 2 and found.values[-1] == 2500.5  # of three, and of two


def test_only_charts_with_values_are_made():
    metrics = [{"step": 1, "reward": 0.5, "seconds": 1, "seconds_data": 0.1, "seconds_update": 0.9}]
    others = [{"step": 1, "loss": 2.0}]
    charts = make_charts(Experiment([run("a", metrics=metrics), run("b", metrics=others)], []))
    assert [chart.key for chart in charts] == ["reward", "loss", "seconds_0"]
    reward, loss, seconds = charts
    assert [one.name for one in reward.lines] == ["a"] and [o.name for o in loss.lines] == ["b"]
    assert seconds.stacked and [one.name for one in seconds.lines] == ["data", "update"]
    assert "a from 0.5 at step 1 to 0.5 at step 1" in reward.summary


def asked(step, rates, scored=None):
    row = {"step": step, "ids": list(rates), "pass_rates": list(rates.values())}
    return row | ({"scored": [scored.get(name) for name in rates]} if scored else {})


def test_pass_rates_are_of_the_same_questions_before_and_after():
    rows = [
        asked(1, {"q": 0.0, "old": 1.0}, {"q": 0.5, "old": 0.5}),
        asked(4, {"q": 0.25}, {"q": 0.5}),
        asked(8, {"q": 0.875, "once": 0.0}, {"q": 0.5}),
    ]
    rates = before_and_after(rows)
    assert rates.before == [1, 0, 0, 0, 0, 0] and rates.after == [0, 0, 0, 0, 1, 0]
    assert rates.before_is == "when first asked"


def test_if_no_question_is_asked_twice_the_scores_of_the_base_model_are_shown():
    rows = [
        asked(1, {"old": 1.0}, {"old": 0.5}),
        asked(8, {"r": 0.5, "new": 1.0, "q": 1.0}, {"q": 0.0625, "r": 0.5}),
    ]
    rates = before_and_after(rows)
    # q and r; "new" was not scored, and "old" was not asked in the last quarter.
    assert rates.before == [0, 1, 1, 0, 0, 0]
    assert rates.after == [0, 0, 1, 0, 0, 1] and rates.before_is == "scores of the base model"
    assert sum(before_and_after([]).before) == 0


def held_out(step, task, *right):
    return [
        {"step": step, "split": "held_out", "task": task, "completions": [{"accuracy": value}]}
        for value in right
    ]


def test_categories_are_of_the_last_held_out_answers_and_of_results():
    samples = held_out(0, "music", 0.0) + held_out(5, "music", 1.0, 0.0) + held_out(5, "sound", 1.0)
    by = {"task_name": {"speech": {"accuracy": 0.5, "rows": 4, "interval": [0.25, 0.75]}}}
    scores = {"benchmark": "mmsu", "by": by}
    results = [Result(name=name, scores=scores) for name in ("x", "y")]
    runs = [run(samples=samples), run("b", samples=held_out(9, "sound", 0.0))]
    mine, theirs = make_charts(Experiment(runs, results))
    assert mine.title.startswith(", held out: accuracy by task")
    assert mine.labels == ("music (2)", "sound (1)")
    assert [bars.values for bars in mine.bars] == [[0.5, 1.0], [None, 0.0]]
    low, high = mine.bars[0].intervals[0]
    assert low == 0 and high == 1
    assert theirs.title.startswith("mmsu: accuracy by task_name")
    assert theirs.labels == ("speech (4)",)
    assert [(bars.name, bars.place) for bars in theirs.bars] == [("x", 2), ("y", 3)]
    assert theirs.bars[0].intervals == [[0.25, 0.75]]


def test_every_phase_of_a_step_is_drawn():
    laps = set()
    for stage in (grpo, sft):
        laps |= set(re.findall(r'watch\.lap\("(\w+)"', inspect.getsource(stage)))
    assert {"generate", "grade", "update"} <= laps
    assert laps | {"data"} == set(PARTS)
    seconds = {f"seconds_{part}": 0.1 for part in PARTS}
    (chart,) = make_charts(Experiment([run(metrics=[{"step": 1, "seconds": 1.0, **seconds}])], []))
    assert [line.name for line in chart.lines] == list(PARTS)


def test_steps_that_compiled_do_not_count_as_steps():
    rows = [{"step": i, "seconds": 1.0, "seconds_update": 1.0} for i in range(1, 100)]
    rows[0] |= {"seconds": 60.0, "seconds_update": 60.0}
    (chart,) = make_charts(Experiment([run(metrics=rows)], []))
    assert chart.lines[0].steps[0] == 2 and chart.lines[0].smooth.max() == pytest.approx(1)


@pytest.mark.parametrize("window", [1, 3])
def test_smooth(window):
    values = np.array([0.0, 3.0, 6.0])
    found = Line(name="a", steps=np.arange(3.0), values=values, window=window).smooth
    assert found.tolist() == ([0, 3, 6] if window == 1 else [0, 1.5, 3])
