import csv
import json
import math

import pytest
from markdown_it import MarkdownIt

from sari_jax.sweep.plan import planned
from sari_jax.sweep.results import (
    BEGUN,
    FAILED,
    FINISHED,
    STOPPED,
    WAITING,
    Results,
    ranked,
    read_row,
)
from sari_jax.train.config import defaults


def run(out, name, *, metrics=(), held_out=(), **settings):
    config = defaults()
    for key, value in settings.items():
        setattr(config, key, value)
    one = planned(name, config, out)
    one.workdir.mkdir(parents=True)
    for file, rows in (("metrics", metrics), ("held_out", held_out)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (one.workdir / f"{file}.jsonl").write_text(lines)
    return one


def table(out) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_says_how_a_run_ended(tmp_path):
    metrics = [
        {"step": n, "reward": n, "accuracy": n / 30, "loss": 1.0, "seconds": 0.5}
        for n in range(1, 31)
    ]
    held_out = [{"step": 0, "accuracy": 0.1}, {"step": 30, "accuracy": 0.75}]
    row = read_row(run(tmp_path, "a", metrics=metrics, held_out=held_out), FINISHED)
    assert row.steps == 30 and row.seconds == pytest.approx(15)
    assert row.reward == pytest.approx(20.5)  # of steps 11 to 30
    assert row.accuracy == pytest.approx(20.5 / 30) and row.loss == 1.0
    assert row.held_out == 0.75
    empty = read_row(run(tmp_path, "b"), WAITING)
    assert (empty.steps, empty.reward, empty.held_out, empty.seconds) == (0, None, None, 0.0)


def rows(tmp_path, figures: dict[str, dict]):
    return [
        read_row(
            run(
                tmp_path,
                name,
                metrics=[{"step": 1, **{k: v for k, v in values.items() if k != "held_out"}}],
                held_out=[{"accuracy": values["held_out"]}] if "held_out" in values else [],
            ),
            FINISHED,
        )
        for name, values in figures.items()
    ]


@pytest.mark.parametrize(
    ("figures", "order", "by"),
    [
        (
            {"a": {"held_out": 0.2, "reward": 3}, "b": {"held_out": 0.3, "reward": 1}},
            "ba",
            "held_out",
        ),
        ({"a": {"held_out": 0.9, "reward": 1}, "b": {"reward": 2}}, "ba", "reward"),
        (
            {"a": {"loss": 2.0}, "b": {"loss": math.nan}, "c": {"loss": 1.0}},
            "cab",
            "loss",
        ),
        ({"a": {"reward": math.nan}, "b": {"reward": -5}}, "ba", "reward"),
        ({"a": {"reward": 1}, "b": {"loss": 1.0}}, "ab", ""),
    ],
)
def test_the_best_is_first(figures, order, by, tmp_path):
    ordered, figure = ranked(rows(tmp_path, figures))
    assert "".join(row.name for row in ordered) == order and figure == by


def test_tables_are_up_to_date_after_every_run(tmp_path):
    metrics = [{"step": 1, "reward": 1.25}]
    runs = [run(tmp_path, name, metrics=metrics, seed=n) for n, name in enumerate("abcd")]
    results = Results(tmp_path, runs)
    assert [row["state"] for row in table(tmp_path)] == [WAITING] * 4
    results.put(runs[2], STOPPED)
    results.put(runs[0], FAILED, "no such file")
    results.put(runs[3], FINISHED)
    found = [(row["name"], row["seed"], row["state"], row["reason"]) for row in table(tmp_path)]
    assert found == [
        ("d", "3", FINISHED, ""),
        ("c", "2", STOPPED, ""),
        ("b", "1", WAITING, ""),
        ("a", "0", FAILED, "no such file"),
    ]
    assert set(table(tmp_path)[0]) == {
        "name", "seed", "state", "steps", "reward", "accuracy", "loss", "held_out", "seconds", "reason",
    }  # fmt: skip
    assert "Best first: by reward." in (tmp_path / "results.md").read_text()
    assert not list(tmp_path.glob(".*"))  # nothing is left aside


def test_a_caller_that_only_looks_sees_failures_and_runs_that_have_begun(tmp_path):
    runs = [run(tmp_path, name, seed=n) for n, name in enumerate("ab")]
    runs.append(run(tmp_path, "c", metrics=[{"step": 1}], seed=2))
    Results(tmp_path, runs).put(runs[1], FAILED, "a, reason")
    for _ in range(2):
        Results(tmp_path, runs, looking=True)
        found = {row["name"]: (row["state"], row["reason"]) for row in table(tmp_path)}
        assert found == {"a": (WAITING, ""), "b": (FAILED, "a, reason"), "c": (BEGUN, "")}
    (tmp_path / "results.csv").write_bytes(b"\xef\xbb\xbfstate,name\r\nfailed,b\xff\r\n")
    Results(tmp_path, runs, looking=True)
    assert {row["name"]: row["state"] for row in table(tmp_path)}["b"] == WAITING
    Results(tmp_path, runs)  # a sweep starts all three
    assert [row["state"] for row in table(tmp_path)] == [WAITING] * 3


def test_a_setting_and_a_figure_of_one_name_have_columns_of_their_own(tmp_path):
    runs = [run(tmp_path, f"r{n}", metrics=[{"step": 1}], steps=n) for n in (5, 6)]
    Results(tmp_path, runs)
    assert [(row["config.steps"], row["steps"]) for row in table(tmp_path)] == [
        ("5", "1"), ("6", "1"),
    ]  # fmt: skip


HOSTILE = "a|b `c` *d* _e_ <img src=x onerror=alert(1)> [f](http://g) \\| &amp; ~~h~~\nnew | line"


def test_text_stays_text_in_the_table(tmp_path):
    runs = [run(tmp_path, name, metrics=[{"step": 1}]) for name in ("a", "b")]
    results = Results(tmp_path, runs)
    results.put(runs[0], FAILED, HOSTILE)
    assert [row["reason"] for row in table(tmp_path)] == ["", HOSTILE]
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    page = markdown.parse((tmp_path / "results.md").read_text())
    cells = [token for token in page if token.type == "inline"][-9:]
    assert len([token for token in page if token.type == "tr_open"]) == 3
    (reason,) = [cell for cell in cells if "onerror" in cell.content]
    assert {child.type for child in reason.children} <= {"text", "text_special"}
    shown = "".join(child.content for child in reason.children)
    assert shown == repr(HOSTILE)[1:-1]
