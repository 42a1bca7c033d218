import dataclasses
import json

import numpy as np
import pytest
import soundfile

from sari_jax.data.records import Clip, write_records
from sari_jax.errors import InputError
from sari_jax.train.config import Data, Model, Run
from sari_jax.train.questions import read_held_out, read_questions
from sari_jax.train.workdir import claim


@pytest.fixture
def folder(make_record, tmp_path):
    """Twelve good records in data.jsonl."""
    soundfile.write(tmp_path / "clip.wav", 0.1 * np.ones(16_000), 16_000)
    clip = (Clip("clip.wav"),)
    write_records(
        tmp_path / "data.jsonl",
        [make_record(id=f"q{i}", audio=clip, question=f"Which {i}?") for i in range(12)],
    )
    return tmp_path


def edit(folder, change):
    """Applies a function to the list of lines' objects."""
    path = folder / "data.jsonl"
    rows = change([json.loads(line) for line in path.read_text().splitlines()])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def spoil(*numbers):
    def change(rows):
        for number in numbers:
            rows[number]["question"] = "What is <|AUDIO|>?"
        return rows

    return change


@pytest.fixture
def read(folder, nano_dir, nano_processor):
    def read(started=False, **changes):
        data = Data(**{"train": str(folder / "data.jsonl"), "style": "direct"} | changes)
        run = Run(model=Model(path=str(nano_dir)), data=data, batch_size=4)
        questions = read_questions(run, folder / "run", nano_processor)
        if not started:
            claim(folder / "run", dataclasses.asdict(run), questions.roster)
        return questions, questions.schedule(run)

    return read


def plan(schedule, batches=6):
    return [list(schedule.plan(0).batches[batch]) for batch in range(batches)]


def test_bad_records_are_refused_before_a_run_starts_and_told_as_a_table(folder, read, capsys):
    edit(folder, spoil(3, 7))
    with pytest.raises(InputError) as refused:
        read()
    assert "2 of 12 records cannot be used and 0.0% are allowed; the first is q3:" in str(
        refused.value
    )
    assert "raise data.max_bad_fraction" in str(refused.value)
    table = capsys.readouterr().err
    assert "2 of 12 records cannot be used" in table and "2  prompt" in table and "q7:" in table
    assert not (folder / "run").exists()


def test_up_to_the_fraction_they_are_left_out_lines_and_records_together(folder, read, capsys):
    edit(folder, spoil(3))
    path = folder / "data.jsonl"
    path.write_text(path.read_text() + "{\n")
    with pytest.raises(InputError, match="2 of 13 records cannot be used"):
        read(max_bad_fraction=0.1)
    questions, _ = read(max_bad_fraction=0.2)
    assert [entry.id for entry in questions.roster] == [f"q{i}" for i in range(12) if i != 3]
    assert questions.total == 13 and len(questions.bad) == 2
    told = capsys.readouterr().err
    assert "1  prompt" in told and "1  bad line" in told


def test_the_order_stays_when_data_shrinks_or_is_mended(folder, read, capsys):
    _, schedule = read()
    before = plan(schedule)
    capsys.readouterr()

    def change(rows):
        rows[4]["choices"] = ["horse", "goat"]
        del rows[8]
        return [*rows[::-1], rows[0] | {"id": "new"}]

    edit(folder, change)
    questions, schedule = read(started=True)
    assert plan(schedule) == before
    assert questions.records[8] is None and questions.records[4].choices == ("horse", "goat")
    assert [record and record.id for record in questions.records] == [
        None if i == 8 else f"q{i}" for i in range(12)
    ]
    assert "of the 12 questions this run started with: 1 changed, 1 gone" in capsys.readouterr().err


def test_by_length_the_order_is_that_of_the_clips_there_were(folder, read):
    for i in range(12):
        soundfile.write(folder / f"{i}.wav", 0.1 * np.ones(16_000 * (1 + i % 4)), 16_000)

    def own(rows):
        return [row | {"audio": [{"path": f"{i}.wav"}]} for i, row in enumerate(rows)]

    edit(folder, own)
    _, schedule = read(window=3)
    before = plan(schedule)
    soundfile.write(folder / "0.wav", 0.1 * np.ones(16_000 * 9), 16_000)
    _, schedule = read(started=True, window=3)
    assert plan(schedule) == before


def test_another_corpus_is_refused(folder, read):
    read()
    edit(folder, lambda rows: [row | {"question": "Else?"} for row in rows])
    with pytest.raises(InputError, match="0 of the 12 questions of this run"):
        read(started=True)


def test_fewer_records_than_a_batch(folder, read):
    edit(folder, lambda rows: rows[:3])
    with pytest.raises(InputError, match="3 usable records are fewer than batch_size 4"):
        read()
    edit(folder, lambda rows: [])
    with pytest.raises(InputError, match="holds no record"):
        read()


def test_held_out_questions_are_checked_too(folder, nano_dir, nano_processor, capsys):
    from sari_jax.train.config import HeldOut

    edit(folder, spoil(0, 5))
    held_out = HeldOut(data=str(folder / "data.jsonl"), every=1, limit=6)
    run = Run(model=Model(path=str(nano_dir)), data=Data(style="direct"), held_out=held_out)
    with pytest.raises(InputError, match="2 of 6 records cannot be used"):
        read_held_out(run, nano_processor)
    run = dataclasses.replace(run, data=Data(style="direct", max_bad_fraction=0.5))
    found = read_held_out(run, nano_processor).records
    assert [record.id for record in found] == ["q1", "q2", "q3", "q4"]


def test_what_is_left_out_by_pass_rate_is_told(folder, nano_dir, nano_processor, capsys):
    rates = [0.0, 0.0, 1.0, *[0.5] * 9]
    edit(
        folder,
        lambda rows: [row | {"pass_rate": rate} for row, rate in zip(rows, rates, strict=True)],
    )
    data = Data(train=str(folder / "data.jsonl"), style="direct", drop_solved=True)
    run = Run(stage="grpo", model=Model(path=str(nano_dir)), data=data, batch_size=4)
    assert len(read_questions(run, folder / "run", nano_processor).records) == 9
    told = "9 records kept; left out: 2 with pass rate 0, 1 with pass rate 1"
    assert f"data.jsonl: {told}\n" in capsys.readouterr().err


def test_lines_after_the_limit_count_nowhere(folder, read):
    with (folder / "data.jsonl").open("a") as file:
        file.write("no record\n" * 5)
    questions, _ = read(limit=8)
    assert (len(questions.records), questions.bad, questions.total) == (8, [], 8)
    questions, _ = read(started=True, limit=8)
    assert (len(questions.records), questions.bad, questions.total) == (8, [], 8)
