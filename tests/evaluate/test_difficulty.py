import dataclasses
import io
import itertools
import json
import sys

import numpy as np
import pytest
import soundfile

from sari_jax.data.ledger import Ledger
from sari_jax.data.lengths import by_length
from sari_jax.data.records import Clip, read_records
from sari_jax.data.styles import STYLES
from sari_jax.errors import InputError
from sari_jax.evaluate.attempts import AttemptSettings, attempted
from sari_jax.evaluate.difficulty import UNREADABLE, Rated, drop_by_pass_rate, rated
from sari_jax.generate.engine import Engine

ATTEMPTS = AttemptSettings(style=STYLES["direct"], count=2, max_tokens=4, rows=2, seed=1)


@pytest.fixture(scope="module")
def records(starter_dir):
    return read_records(starter_dir / "test.jsonl")[:5]


@pytest.fixture(scope="module")
def engine(small_model):
    return Engine(small_model)


@pytest.fixture(scope="module")
def whole(engine, records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "attempts"
    return folder, rated(engine, records, ATTEMPTS, folder, ATTEMPTS.settings())


def content(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_attempts_are_kept_and_their_mean_is_the_pass_rate(whole, records):
    folder, scored = whole
    assert len(list(folder.glob("batch-*.jsonl"))) == 3
    rows = [json.loads(line) for name in sorted(content(folder)) if name.startswith("batch")
            for line in content(folder)[name].splitlines()]  # fmt: skip
    order = [place for batch in by_length(records, 2) for place in batch]
    assert [row["id"] for row in rows] == [records[place].id for place in order]
    assert [one.record.id for one in scored] == [record.id for record in records]
    kept = {row["id"]: row for row in rows}
    for record, _ in scored:
        row = kept[record.id]
        assert len(row["attempts"]) == 2
        assert record.pass_rate == sum(t["right"] for t in row["attempts"]) / 2


@pytest.mark.parametrize("lost", [(), (0,), (1, 2), (0, 1, 2)])
def test_what_is_missing_is_done_and_nothing_else(
    whole, engine, records, tmp_path, monkeypatch, lost
):
    folder, scored = whole
    for name, text in content(folder).items():
        (tmp_path / name).write_text(text)
    (tmp_path / ".batch-000001.jsonl.7.partial").write_text("half of")  # a killed process's
    for batch in lost:
        (tmp_path / f"batch-{batch:06d}.jsonl").unlink()
    asked = []
    answer = Engine._batch
    monkeypatch.setattr(
        Engine,
        "_batch",
        lambda self, examples, *rest: asked.append(1) or answer(self, examples, *rest),
    )
    assert rated(engine, records, ATTEMPTS, tmp_path, ATTEMPTS.settings()) == scored
    assert len(asked) == len(lost)
    found = content(tmp_path)
    assert {name: found[name] for name in content(folder)} == content(folder)


def test_attempts_of_other_settings_are_refused(whole, engine, records):
    folder, _ = whole
    with pytest.raises(InputError, match="attempts with another temperature, seed"):
        rated(
            engine, records, ATTEMPTS, folder, ATTEMPTS.settings() | {"temperature": 0.5, "seed": 2}
        )


def test_attempts_in_other_batches_are_refused(whole, engine, records, tmp_path):
    for name, text in content(whole[0]).items():
        (tmp_path / name).write_text(text)
    settings = json.loads((tmp_path / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps(settings | {"grouping": "by place"}))
    with pytest.raises(InputError, match="attempts with another grouping"):
        rated(engine, records, ATTEMPTS, tmp_path, ATTEMPTS.settings())


@pytest.mark.numerics
def test_whatever_its_batch_a_question_gets_the_attempts_that_it_gets_alone(
    engine, records, tmp_path, monkeypatch
):
    """Short and long ones in no order, one of which cannot be read."""
    noise, path = np.random.default_rng(0).uniform(-0.3, 0.3, 160_000), str(tmp_path / "long.wav")
    soundfile.write(path, noise, 16_000)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    seconds = [0.9, 2.6, 0.3, 2.2, 1.4, 0.5, 2.9, 3.6, 0.2, 1.9]
    mixed = [
        dataclasses.replace(records[i % 5], id=f"{i}", audio=(Clip(path, 0.0, length),))
        for i, length in enumerate(seconds)
    ]
    mixed.insert(4, dataclasses.replace(records[0], id="bad", audio=(Clip(f"{tmp_path}/bad.wav"),)))
    texts, sizes, answer = {}, {}, Engine._batch

    def watched(self, examples, *rest):
        longest = [max(len(w) for w in example.waveforms) for example in examples]
        sizes.setdefault(rows, []).append((min(longest), max(longest)))
        return answer(self, examples, *rest)

    monkeypatch.setattr(Engine, "_batch", watched)
    for rows in (1, 3, 4):
        asked = dataclasses.replace(ATTEMPTS, rows=rows)
        found = attempted(engine, mixed, asked, tmp_path / str(rows), asked.settings(), "test")
        assert [row["id"] for row in found] == [record.id for record in mixed]
        assert "bad.wav" in found[4]["error"] and sum("error" in row for row in found) == 1
        texts[rows] = [[t["text"] for t in row.get("attempts", ())] for row in found]
    assert texts[3] == texts[1] and texts[4] == texts[1]
    assert len({str(text) for text in texts[1]}) > 5  # else any order would do
    for ranges in sizes.values():  # longest first, and no batch reaches into another
        assert all(below[1] <= above[0] for above, below in itertools.pairwise(ranges))


@pytest.mark.parametrize(
    "changed", [lambda text: text[:40], lambda text: text.replace('"done"', '"ended"')]
)
def test_attempts_that_were_cut_or_of_another_version_are_named(
    changed, whole, engine, records, tmp_path
):
    for name, text in content(whole[0]).items():
        (tmp_path / name).write_text(text)
    path = tmp_path / "batch-000001.jsonl"
    path.write_text(changed(path.read_text()))
    with pytest.raises(InputError, match="batch-000001.jsonl: not the attempts of this batch"):
        rated(engine, records, ATTEMPTS, tmp_path, ATTEMPTS.settings())


def test_what_is_never_right_is_dropped_and_counted(make_record):
    scored = [Rated(make_record(id=str(rate), pass_rate=rate)) for rate in (0.0, 0.5, 1.0)]
    ledger = Ledger()
    assert [r.id for r in drop_by_pass_rate(scored, ledger)] == ["0.5", "1.0"]
    assert ledger.report() == {"read": 3, "kept": 2, "dropped": {"pass rate 0": 1}}
    ledger = Ledger()
    assert [r.id for r in drop_by_pass_rate(scored, ledger, drop_solved=True)] == ["0.5"]
    assert ledger.report()["dropped"] == {"pass rate 0": 1, "pass rate 1": 1}


def test_what_cannot_be_asked_is_dropped_with_its_reason_and_the_rest_answered_as_ever(
    engine, records, whole, tmp_path
):
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    bad = dataclasses.replace(records[2], audio=(Clip(str(tmp_path / "bad.wav")),))
    both = [bad, dataclasses.replace(bad, id="b")]
    some = [*records[:2], bad, records[3], *both[1:], dataclasses.replace(bad, id="c")]
    settings = ATTEMPTS.settings()
    scored = rated(engine, some, ATTEMPTS, tmp_path / "attempts", settings)
    assert [bool(error) for _, error in scored] == [False, False, True, False, True, True]
    assert [scored[i] for i in (0, 1)] == whole[1][:2]
    assert scored == rated(engine, some, ATTEMPTS, tmp_path / "attempts", settings)
    ledger = Ledger()
    drop_by_pass_rate(scored, ledger)
    assert ledger.report()["read"] == 6 and ledger.report()["dropped"][UNREADABLE] == 3
    assert "bad.wav" in next(d.detail for d in ledger.dropped if d.reason == UNREADABLE)


def test_any_character_may_be_answered(engine, records, tmp_path, monkeypatch):
    answer = Engine._batch

    def odd(self, examples, *rest):
        for answered in answer(self, examples, *rest):
            yield dataclasses.replace(answered, texts=["a\u2028b\u0085c\n\ud800"] * 2)

    monkeypatch.setattr(Engine, "_batch", odd)
    assert len(rated(engine, records, ATTEMPTS, tmp_path / "a", ATTEMPTS.settings())) == 5


@pytest.mark.parametrize("terminal", [True, False])
def test_people_see_how_far_it_is_and_files_do_not(
    small_model, records, tmp_path, monkeypatch, terminal
):
    class Terminal(io.StringIO):
        def isatty(self):
            return terminal

    told = Terminal()
    monkeypatch.setattr(sys, "stderr", told)
    rated(Engine(small_model), records, ATTEMPTS, tmp_path / "a", ATTEMPTS.settings())
    lines = told.getvalue().replace("\r", "\n").split("\n")
    seen = [any(line.startswith(what) for line in lines) for what in ("loading ", "score: 100%")]
    assert seen == [terminal] * 2 and (terminal or not told.getvalue())
