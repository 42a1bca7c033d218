"""Records that a run cannot read: met late, skipped, counted, mended; in whole runs of real files."""

import json

import numpy as np
import pytest
import soundfile
from runs import (
    ROOT,
    assert_same_parameters,
    end_hosts,
    finish,
    rows,
    sari,
    start_hosts,
    untimed,
)

from sari_jax.data.pipeline import Batches, Reader
from sari_jax.data.processor import Shapes
from sari_jax.data.records import Clip, Record, read_records, write_records
from sari_jax.data.roster import enrol
from sari_jax.data.styles import STYLES
from sari_jax.train.config import Data, Run
from sari_jax.train.feed import Feed, TooManyBad
from sari_jax.train.questions import Questions

REWARD = """
def vowels(completion, record, style):
    return sum(map(completion.count, "aeiou")) / 8
"""


@pytest.fixture
def folder(tmp_path):
    """Records of which one, q20, is cut short: its header is whole, so that this is met late."""

    def clip(i):
        return 0.1 * np.random.default_rng(i).standard_normal(16_000)

    records = []
    for i in range(24):
        path = tmp_path / f"{i}.flac"
        soundfile.write(path, clip(i), 16_000)
        known = dict(answer_index=i % 2, task="sound", source="here", licence="CC0-1.0")
        records.append(Record(f"q{i}", (Clip(path.name),), f"Which {i}?", ("cat", "dog"), **known))
    write_records(tmp_path / "data.jsonl", records)
    whole = (tmp_path / "20.flac").read_bytes()
    (tmp_path / "whole.flac").write_bytes(whole)
    (tmp_path / "20.flac").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "reward.py").write_text(REWARD)
    return tmp_path


def changes(folder, **more):
    every = {"batch_size": 4, "steps": 8, "checkpoint.every": 100, "samples_every": 99}
    every |= {"data.style": "direct", "data.order": "as_written", "held_out.every": 0}
    # Adam, which compiles faster than the config's Muon, in one shape.
    every |= {"optimizer.name": "adamw", "optimizer.learning_rate": 1e-3}
    every |= {"optimizer.schedule": "constant", "optimizer.warmup_steps": 0}
    every |= {"data.shapes.prompt_tokens": "(192,)", "data.shapes.audio_seconds": "(4.0,)"}
    every |= {"data.train": folder / "data.jsonl"}
    return every | more


def overrides(settings):
    return [f"--config.{key}={value}" for key, value in settings.items()]


def words(stage, model, folder, workdir, **more) -> list[str]:
    if stage == "grpo":
        more = {
            **{"grpo.rewards": "('vowels=1',)", "grpo.reward_file": folder / "reward.py"},
            **{"grpo.num_completions": 4, "grpo.max_tokens": 8, "grpo.overlap": True},
        } | more
    config = ROOT / f"configs/{stage}_nano.py"
    settings = changes(folder, **{"model.path": model}) | more
    return sari("train", "--config", config, "--workdir", workdir, *overrides(settings))


def mend(folder):
    (folder / "20.flac").write_bytes((folder / "whole.flac").read_bytes())


def remove(folder):
    path = folder / "data.jsonl"
    path.write_text(
        "".join(path.read_text().splitlines(keepends=True)[i] for i in range(24) if i != 20)
    )


@pytest.fixture
def feed(folder, nano_processor):
    """A function that makes the batches of a run: their first 20 records can be read."""
    everyone = read_records(folder / "data.jsonl")

    def feed(fraction=0.0, records=everyone):
        questions = Questions(enrol(everyone), records, [], len(everyone))
        schedule = questions.schedule(Run(batch_size=8, data=Data(order="as_written")))
        reader = Reader(records, nano_processor, STYLES["direct"], Shapes())
        run = Run(data=Data(max_bad_fraction=fraction))
        return Feed(run, questions, reader, Batches(schedule, reader))

    return feed


def test_what_is_skipped_is_counted_once_and_told_once(feed, capsys):
    batches = feed(fraction=1 / 24)
    for _ in range(9):  # the record comes in every third batch
        batches.take()
    assert list(batches.skipped) == ["q20"] and "lost sync" in batches.skipped["q20"]
    assert capsys.readouterr().err.count("skipped record q20") == 1
    assert batches.fresh().keys() == {"q20"} and batches.fresh() == {}


def test_one_too_many_ends_it_and_its_batch_comes_again_once_it_is_mended(feed, folder):
    batches = feed()
    batches.take(), batches.take()
    state = json.loads(json.dumps(batches.state(2)))
    with pytest.raises(
        TooManyBad, match="1 of 24 records cannot be used and 0.0% are allowed; the last is q20"
    ):
        batches.take()
    again = feed()
    again.restore(json.loads(json.dumps(batches.state(2))))
    assert again.skipped.keys() == {"q20"}
    with pytest.raises(TooManyBad):
        again.take()
    mend(folder)
    again = feed()
    again.restore(json.loads(json.dumps(batches.state(2))))
    assert again.skipped == {} and state["skipped"] == {}
    assert again.take().indices.tolist() == list(range(16, 24))


def test_a_record_that_is_gone_counts_nowhere(feed, folder):
    records = read_records(folder / "data.jsonl")
    records[20] = None
    batches = feed(records=records)
    indices = [batches.take().indices.tolist() for _ in range(3)][-1]
    assert indices == [16, 17, 18, 19, 21, 21, 22, 23]
    assert batches.skipped == {}


@pytest.mark.runs
def test_a_late_fault_ends_a_run_in_one_line_and_once_mended_it_goes_on_with_the_same_bits(
    small_model, folder, tmp_path, capsys
):
    from sari_jax.cli import main

    stopped = words("sft", small_model, folder, tmp_path / "stopped", steps=4, batch_size=8)[3:]
    assert main(stopped) == 2
    *_, told = capsys.readouterr().err.splitlines()
    assert told.startswith(
        "sari: 1 of 24 records cannot be used and 0.0% are allowed; the last is q20:"
    )
    assert "step 2 of 4 is safe in" in told and told.count("sari:") == 1
    assert [row["step"] for row in rows(tmp_path / "stopped")] == [1, 2]  # checkpoint.every = 100
    mend(folder)
    assert main(stopped) == 0
    assert "resumed after step 2" in capsys.readouterr().err
    found = untimed(tmp_path / "stopped")
    assert [row["step"] for row in found] == [1, 2, 3, 4]
    assert all(row["update_norm"] > 0 for row in found)
    assert {row["records_skipped"] for row in found} == {0}
    asked = [
        json.loads(line)["ids"]
        for line in (tmp_path / "stopped/questions.jsonl").read_text().splitlines()
    ]
    assert asked == [[f"q{8 * step % 24 + i}" for i in range(8)] for step in range(4)]


@pytest.mark.runs
@pytest.mark.parametrize(
    ("stage", "workers", "change"),
    [("sft", 0, remove), ("sft", 1, mend), ("grpo", 0, mend), ("grpo", 1, remove)],
)
def test_whatever_mends_it_the_same_command_goes_on(
    stage, workers, change, small_model, folder, tmp_path
):
    def run(name, **more):
        more = {"data.workers": workers} | more
        return finish(words(stage, small_model, folder, tmp_path / name, **more))

    def ends(name):
        ended = run(name)
        assert ended.returncode == 2 and "Traceback" not in ended.stderr, ended.stderr[-2000:]
        assert "is safe in" in ended.stderr.splitlines()[-1]

    def goes_on(name, **more):
        done = run(name, **more)
        assert done.returncode == 0, done.stderr[-2000:]
        found = untimed(tmp_path / name)
        assert [row["step"] for row in found] == list(range(1, 9))
        assert all(row["update_norm"] > 0 for row in found)
        return found

    allowed = {"data.max_bad_fraction": 0.1}
    undisturbed = run("skipped", **allowed)
    assert undisturbed.returncode == 0, undisturbed.stderr[-2000:]
    assert undisturbed.stderr.count("skipped record q20:") == 1
    expected = untimed(tmp_path / "skipped")
    assert [row["records_skipped"] for row in expected][-1] == 1
    ends("allowed")
    # As if it had been allowed from the beginning.
    assert goes_on("allowed", **allowed) == expected
    assert_same_parameters(tmp_path / "skipped", tmp_path / "allowed")
    for file in ("skipped.jsonl", "questions.jsonl"):
        both = [(tmp_path / name / file).read_text() for name in ("skipped", "allowed")]
        assert both[0] == both[1]
    ends("changed")
    change(folder)
    assert goes_on("changed")[-1]["records_skipped"] == 0


@pytest.mark.runs
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_two_hosts_skip_and_end_together(stage, small_model, folder, tmp_path):
    """Only one of them meets the record."""
    shared = {"mesh.data": 1, "batch_size": 8, "steps": 4, "checkpoint.every": 1}
    allowed = shared | {"data.max_bad_fraction": 0.1}
    alone = finish(words(stage, small_model, folder, tmp_path / "alone", **allowed), devices=4)
    assert alone.returncode == 0, alone.stderr[-2000:]

    def pair(name, **more):
        command = words(stage, small_model, folder, tmp_path / name, **shared | more)
        return end_hosts(start_hosts(command, devices=2))

    done = pair("pair")
    assert [host.returncode for host in done] == [2, 2], [host.stderr[-1500:] for host in done]
    for host in done:
        assert "the last is q20:" in host.stderr and "Traceback" not in host.stderr
    # GRPO reads the third batch before its second step, and ends where it goes on with the same bits: to make that step
    # without decoding ahead would leave the third batch to another policy.
    made = [1] if stage == "grpo" else [1, 2]
    assert [row["step"] for row in rows(tmp_path / "pair")] == made
    done = pair("pair", **{"data.max_bad_fraction": 0.1})
    assert [host.returncode for host in done] == [0, 0], [host.stderr[-1500:] for host in done]
    found, expected = untimed(tmp_path / "pair"), untimed(tmp_path / "alone")
    assert [row["records_skipped"] for row in found] == [row["records_skipped"] for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-4, abs=1e-6)
        assert row["update_norm"] == pytest.approx(wanted["update_norm"], rel=1e-3)
        assert row["update_norm"] > 0


@pytest.mark.runs
def test_held_out_questions_that_cannot_be_read_are_named_and_counted(
    small_model, folder, tmp_path
):
    asked = {"held_out.data": folder / "data.jsonl", "held_out.every": 2, "steps": 2}
    asked |= {"held_out.max_tokens": 4, "data.limit": 8}
    done = finish(words("sft", small_model, folder, tmp_path / "run", **asked))
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert "1 of 24 records cannot be used and 0.0% are allowed; the last is q20:" in done.stderr
    assert [row["step"] for row in rows(tmp_path / "run")] == []
    asked |= {"data.max_bad_fraction": 0.1}
    done = finish(words("sft", small_model, folder, tmp_path / "run", **asked))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "held out: skipped record q20:" in done.stderr
    examined = (tmp_path / "run/held_out.jsonl").read_text().splitlines()
    assert [json.loads(line)["rows"] for line in examined] == [23, 23]
    skipped = [json.loads(line) for line in (tmp_path / "run/skipped.jsonl").open()]
    assert [(row["step"], row["split"], row["id"]) for row in skipped] == [
        (step, "held_out", "q20") for step in (0, 2)
    ]
