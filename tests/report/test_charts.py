import math

import numpy as np
import pytest

from sari_jax.report.charts import Line, before_and_after, line, make_charts, moving_average
from sari_jax.report.experiment import Experiment, Result, Run


def run(name="a", **rows):
    rows = {"metrics": [], "questions": [], "samples": [], "held_out": []} | rows
    return Run(name, {"stage": "grpo"}, **rows)


def test_moving_average_looks_back_only():
    np.testing.assert_allclose(moving_average(np.array([1.0, 3.0, 5.0, 9.0]), 2), [1, 2, 4, 7])
    np.testing.assert_allclose(moving_average(np.array([1.0, 3.0]), 1), [1, 3])
    np.testing.assert_allclose(moving_average(np.array([2.0, 4.0]), 9), [2, 3])


def test_a_line_holds_what_is_finite():
    rows = [{"step": 1}, {"step": 2, "loss": math.nan}, {"step": 3, "loss": 1.0}]
    found = line(rows, "loss", "a")
    assert found.steps.tolist() == [3] and found.values.tolist() == [1]
    assert line(rows, "reward", "a") is None


def test_a_long_line_is_averaged_and_ends_where_it_ended():
    rows = [{"step": step, "loss": float(step)} for step in range(1, 2502)]
    found = line(rows, "loss", "a")
    assert len(found.steps) == 834 and found.steps[-1] == 2501
    assert found.values[0] == 2 and found.values[-1] == 2500.5  # of three, and of two


def test_charts_are_of_what_there_is():
    metrics = [{"step": 1, "reward": 0.5, "seconds_data": 0.1, "seconds_update": 1.0}]
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
        asked(1, {"old": 1.0, "q": 0.25}, {"old": 0.5, "q": 0.0625}),
        asked(8, {"q": 1.0, "r": 0.5, "new": 1.0}, {"q": 0.0625, "r": 0.5}),
    ]
    before, after, told = before_and_after(rows)
    assert before == [0, 1, 1, 0, 0, 0]  # q and r; "new" was not scored, "old" not asked again
    assert after == [0, 0, 1, 0, 0, 1] and told == "as scored before"


def test_unscored_questions_are_compared_with_when_they_were_first_asked():
    rows = [asked(1, {"q": 0.0, "old": 1.0}), asked(8, {"q": 0.875, "once": 0.0})]
    before, after, told = before_and_after(rows)
    assert before == [1, 0, 0, 0, 0, 0] and after == [0, 0, 0, 0, 1, 0]
    assert told == "when first asked"
    assert sum(before_and_after([])[0]) == 0


def held_out(step, task, *right):
    return [
        {"step": step, "split": "held_out", "task": task, "completions": [{"accuracy": value}]}
        for value in right
    ]


def test_categories_are_of_the_last_held_out_answers_and_of_results():
    samples = held_out(0, "music", 0.0) + held_out(5, "music", 1.0, 0.0) + held_out(5, "sound", 1.0)
    scores = {"by": {"task": {"speech": {"accuracy": 0.5, "rows": 4, "interval": [0.25, 0.75]}}}}
    (chart,) = make_charts(Experiment([run(samples=samples)], [Result("eval", scores)]))
    assert chart.key == "by_task" and chart.labels == ("music", "sound", "speech")
    mine, theirs = chart.bars
    assert mine.values == [0.5, 1.0, None] and theirs.values == [None, None, 0.5]
    low, high = mine.intervals[0]
    assert low == 0 and high == 1 and mine.intervals[1] == [1, 1] and mine.intervals[2] is None
    assert theirs.intervals == [None, None, [0.25, 0.75]]


@pytest.mark.parametrize("window", [1, 3])
def test_smooth(window):
    values = np.array([0.0, 3.0, 6.0])
    found = Line("a", np.arange(3.0), values, window).smooth
    assert found.tolist() == ([0, 3, 6] if window == 1 else [0, 1.5, 3])
