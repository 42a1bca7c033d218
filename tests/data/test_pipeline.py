import dataclasses
import doctest
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sari_jax.data import pipeline
from sari_jax.data.curriculum import ADAPTIVE, ORDERS, Curriculum, order
from sari_jax.data.pipeline import Batches, NothingReadable, Reader, repeats
from sari_jax.data.processor import Shapes
from sari_jax.data.records import Clip, write_records
from sari_jax.data.schedule import make_schedule
from sari_jax.data.styles import STYLES
from sari_jax.errors import InputError

RATES = [0.5, 1.0, 0.0, 0.5, 0.25, 0.75, 0.125]
EPOCH = len(RATES)
EVERY = (*ORDERS, ADAPTIVE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for i in range(EPOCH):
        noise = 0.1 * np.random.default_rng(i).standard_normal(4_000 + 160 * i)
        soundfile.write(folder / f"{i}.wav", noise, 16_000, subtype="FLOAT")
    return folder


@pytest.fixture
def records(folder, make_record):
    return [
        make_record(id=f"r{i}", audio=(Clip(str(folder / f"{i}.wav")),), pass_rate=rate)
        for i, rate in enumerate(RATES)
    ]


@pytest.fixture
def make(records, nano_processor, make_record):
    def make(name="random", *, batch_size=3, seed=0, answers=False, rows=None, workers=0, **more):
        settings = {name: more.pop(name) for name in ("workers", "read_ahead") if name in more}
        curriculum = Curriculum(order=name, **more)
        ranked = [record or make_record(id="gone") for record in records]
        schedule = make_schedule(ranked, curriculum, batch_size=batch_size, seed=seed)
        rows = None if rows is None else tuple(rows)
        reader = Reader(records, nano_processor, STYLES["direct"], Shapes(), answers, rows)
        return Batches(schedule, reader, workers=workers, **settings)

    return make


def indices_of(iterator, count: int) -> list[int]:
    """The records' indices of the next `count` batches."""
    return [int(index) for batch in itertools.islice(iterator, count) for index in batch.indices]


def assert_same(one, other) -> None:
    for field in dataclasses.fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_a_batch_holds_what_the_processor_makes_of_its_records(make, records, nano_processor):
    batch = next(make(answers=True, seed=3))
    examples = [
        nano_processor.question(records[i], STYLES["direct"], index=int(i), answer=True)
        for i in batch.indices
    ]
    expected = nano_processor.collate(examples, Shapes())
    assert batch.records == expected.records == tuple(records[i] for i in batch.indices)
    assert_same(batch.prompts, expected.prompts)
    np.testing.assert_array_equal(batch.answers, expected.answers)
    np.testing.assert_array_equal(batch.answer_mask, expected.answer_mask)


def test_answers_only_where_they_are_asked_for(make):
    batch = next(make())
    assert batch.answers is None and batch.answer_mask is None


@pytest.mark.parametrize("curriculum", ["easy_to_hard", "hard_to_easy"])
def test_a_curriculum_is_walked_again_in_the_same_sequence(make, records, curriculum):
    """Batches run on over the end of an epoch; no question is dropped."""
    seen = indices_of(make(curriculum, seed=1), EPOCH)
    assert seen == 3 * order(records, curriculum, 1)
    rates = [RATES[i] for i in seen[:EPOCH]]
    assert rates == sorted(RATES, reverse=curriculum == "easy_to_hard")


def test_a_question_that_stands_in_a_batch_again_is_sampled_anew(make):
    assert doctest.testmod(pipeline) == (0, 1) and repeats([]) == []
    once = next(make())
    np.testing.assert_array_equal(once.sampling_seeds, once.indices)
    twice = next(make("as_written", batch_size=2 * EPOCH))
    assert len(set(twice.indices.tolist())) < len(set(twice.sampling_seeds.tolist())) == 2 * EPOCH
    part = next(make("as_written", batch_size=2 * EPOCH, rows=range(5, 9)))
    np.testing.assert_array_equal(part.sampling_seeds, twice.sampling_seeds[5:9])


def test_random_shuffles_anew_each_epoch(make):
    seen = indices_of(make(seed=1), EPOCH)
    epochs = [tuple(seen[i : i + EPOCH]) for i in range(0, 3 * EPOCH, EPOCH)]
    assert all(sorted(epoch) == list(range(EPOCH)) for epoch in epochs)
    assert len(set(epochs)) == 3


@pytest.mark.parametrize("curriculum", EVERY)
def test_only_the_seed_decides(make, curriculum):
    first = indices_of(make(curriculum, seed=1), 5)
    assert indices_of(make(curriculum, seed=1, read_ahead=1), 5) == first
    assert curriculum == "as_written" or any(
        indices_of(make(curriculum, seed=seed), 5) != first for seed in (2, 3, 4)
    )


@pytest.mark.parametrize("curriculum", EVERY)
@pytest.mark.parametrize("taken", [0, 1, 4])
def test_goes_on_exactly_where_it_stopped(make, curriculum, taken):
    begun = make(curriculum, seed=5)
    indices_of(begun, taken)
    state = json.loads(json.dumps(begun.state()))  # as it is stored
    rest = list(itertools.islice(begun, 6))
    resumed = make(curriculum, seed=5)
    next(resumed)  # its own reading ahead is forgotten
    resumed.set_state(state)
    for batch, again in zip(rest, itertools.islice(resumed, 6), strict=True):
        assert batch.records == again.records
        assert_same(batch.prompts, again.prompts)
    assert resumed.position == taken + 6


def test_processes_divide_each_global_batch(make):
    """Their parts one after the other are the batch, and their places are the same."""
    whole = make(batch_size=4, seed=2)
    parts = [make(batch_size=4, seed=2, rows=rows) for rows in ([0, 1], [2, 3])]
    for _ in range(4):
        together = [index for part in parts for index in indices_of(part, 1)]
        assert together == indices_of(whole, 1)
    state = whole.state()
    assert [part.state() for part in parts] == [state, state]
    resumed = make(batch_size=4, seed=2, rows=[3])  # by another number of processes
    resumed.set_state(json.loads(json.dumps(state)))
    assert indices_of(resumed, 2) == indices_of(whole, 2)[3::4]


@pytest.mark.runs
def test_worker_processes_give_the_same_batches(make):
    """However many read, when their number changes within an epoch, and from one draw to the next."""
    settings = dict(seed=4, refresh=4)
    expected = list(itertools.islice(make(ADAPTIVE, **settings), 6))
    two = make(ADAPTIVE, workers=2, **settings)
    found = list(itertools.islice(two, 2))
    state = json.loads(json.dumps(two.state()))
    two.close()
    one = make(ADAPTIVE, workers=1, read_ahead=1, **settings)
    one.set_state(state)
    found += itertools.islice(one, 4)
    one.close()
    for batch, other in zip(expected, found, strict=True):
        assert batch.records == other.records
        assert_same(batch.prompts, other.prompts)


@pytest.mark.runs
def test_workers_end_with_a_run_that_is_killed(records, nano_dir, tmp_path):
    """The run cannot tell them, nor clear up."""
    write_records(tmp_path / "records.jsonl", records)
    words = ["data", "bench", "--data", str(tmp_path / "records.jsonl"), "--model", str(nano_dir)]
    words += ["--workers", "1", "--batches", "1000000", "--batch-size", "3"]
    run = subprocess.Popen([sys.executable, "-m", "sari_jax.cli", *words])

    def spawned():
        return [
            pid
            for file in Path(f"/proc/{run.pid}/task").glob("*/children")
            for pid in file.read_text().split()
            if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
        ]

    until(lambda: spawned() and Path(f"/proc/{spawned()[0]}/stat").read_text().split()[13] > "99")
    workers = spawned()
    run.kill()
    run.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def until(true, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_is_learnt_decides_what_comes(make):
    """Questions that the rollouts show to be solved come no more often than the floor lets them."""
    data = make(ADAPTIVE, batch_size=7, refresh=2)
    for _ in range(40):
        batch = next(data)
        data.learn(batch.indices.tolist(), [float(index >= 2) for index in batch.indices])
    seen = indices_of(data, 2)
    assert len(seen) == 14  # all seven rates are near 0 or 1 by now: only the floor draws
    resumed = make(ADAPTIVE, batch_size=7, refresh=2)
    resumed.set_state(json.loads(json.dumps(data.state(40))))
    assert indices_of(resumed, 2) == seen


def test_an_order_by_pass_rate_needs_one(make, records):
    records[0] = dataclasses.replace(records[0], pass_rate=None)
    with pytest.raises(InputError, match="1 of 7 records have no pass_rate"):
        make("easy_to_hard")
    assert next(make("random"))


@pytest.fixture
def damaged(records, tmp_path):
    """The records, some of which cannot be read: their indices, and why."""
    text, long = tmp_path / "text.wav", tmp_path / "long.wav"
    text.write_text("no sound")
    soundfile.write(long, np.zeros(31 * 16_000) + 0.1, 16_000)
    changes = {1: dict(audio=(Clip(str(text)),)), 3: dict(question="<|AUDIO|>")}
    changes |= {4: dict(audio=(Clip(str(long)),)), 6: dict(audio=(Clip(str(tmp_path / "no.wav")),))}
    for index, change in changes.items():
        records[index] = dataclasses.replace(records[index], **change)
    records[5] = None  # gone from the file
    why = {
        1: "text.wav: corrupt",
        3: "placeholders",
        4: "31.0 s is longer than the limit of 30 s",
        5: "gone",
        6: "no such",
    }
    return records, why


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.runs)])
def test_what_cannot_be_read_is_skipped_and_another_question_of_its_batch_is_asked(
    damaged, make, workers
):
    _, why = damaged
    iterator = make("as_written", batch_size=7, workers=workers)
    for _ in range(2):
        batch = next(iterator)
        # Each row's own question, or the next one of the batch that can be read.
        assert batch.indices.tolist() == [0, 2, 2, 0, 0, 0, 0]
        assert [record.id for record in batch.records] == ["r0", "r2", "r2", "r0", "r0", "r0", "r0"]
        assert (
            len(set(zip(batch.indices.tolist(), batch.sampling_seeds.tolist(), strict=True))) == 7
        )
    assert iterator.bad.keys() == why.keys()
    for index, reason in why.items():
        assert reason in iterator.bad[index]
    iterator.close()


def test_hosts_skip_alike(damaged, make):
    whole = next(make("random", batch_size=6))
    parts = [next(make("random", batch_size=6, rows=rows)) for rows in ([0, 1, 2], [3, 4, 5])]
    np.testing.assert_array_equal(
        whole.sampling_seeds, np.concatenate([part.sampling_seeds for part in parts])
    )
    np.testing.assert_array_equal(whole.indices, np.concatenate([part.indices for part in parts]))


def test_a_batch_of_one_takes_the_question_that_follows_in_the_file(damaged, make):
    assert indices_of(make("as_written", batch_size=1), 7) == [0, 2, 2, 0, 0, 0, 0]


def test_where_nothing_can_be_read_the_position_stays(damaged, make):
    records, _ = damaged
    readable = records[0], records[2]
    records[0] = records[2] = None
    iterator = make("as_written", batch_size=2)
    for _ in range(2):
        with pytest.raises(NothingReadable, match="no question of batch 1 can be read"):
            next(iterator)
        assert iterator.position == 0 and len(iterator.bad) == EPOCH
    records[0], records[2] = readable
    assert next(iterator).indices.tolist() == [0, 0]
