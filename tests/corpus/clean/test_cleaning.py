import dataclasses
import json

import numpy as np
import pytest
import soundfile

from sari_jax.corpus.clean.cleaning import Cleaning, clean
from sari_jax.data.records import Clip, read_records, write_records
from sari_jax.errors import InputError


@pytest.fixture
def folder(tmp_path):
    for number in range(6):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 16_000)
        soundfile.write(tmp_path / f"{number}.wav", noise, 16_000)
    (tmp_path / "bad.wav").write_text("no sound")
    return tmp_path


def test_every_input_is_accounted_for_once(folder, make_record):
    def record(name: str, sound: str, **changes):
        return make_record(id=name, audio=(Clip(str(folder / sound)),), **changes)

    one = [record(f"a{i}", f"{i}.wav") for i in range(4)]
    one += [record("again", "0.wav"), record("bad", "bad.wav"), record("gone", "none.wav")]
    two = [record("a0", "4.wav"), record("known", "5.wav", question="What is it that barks here?")]
    write_records(folder / "one.jsonl", one)
    write_records(folder / "two.jsonl", two)
    with (folder / "two.jsonl").open("a") as file:
        file.write("no json\n")
    row = {"question": two[1].question, "choices": two[1].choices, "id": "m1"}
    (folder / "bench.json").write_text(json.dumps([row]))
    (folder / "heard").mkdir()
    (folder / "heard/x.wav").write_bytes((folder / "3.wav").read_bytes())
    plan = Cleaning(
        against=(str(folder / "bench.json"),), against_audio=(str(folder / "heard"),), workers=1
    )
    report = clean([folder / "one.jsonl", folder / "two.jsonl"], folder / "out", plan)
    assert report["read"] == 10 and report["kept"] == 4
    assert report["dropped"] == {
        reason: 1
        for reason in (
            "sound file missing",
            "bad line",
            "sound unreadable",
            "question of a benchmark",
            "sound of a benchmark",
            "exact duplicate",
        )
    }
    assert report["renamed"]["count"] == 1 and report["probe"]["verdict"] == "too few"
    kept = read_records(folder / "out/records.jsonl")
    assert [r.id for r in kept] == ["a0", "a1", "a2", "two/a0"]
    assert {r.choices[r.answer_index] for r in kept} == {"dog"}
    lines = (folder / "out/dropped.jsonl").read_text().splitlines()
    assert len(lines) == 6 and all(json.loads(line)["detail"] for line in lines)
    with pytest.raises(InputError, match="is not empty; name a new directory"):
        clean([folder / "one.jsonl"], folder / "out", plan)


def test_a_template_goes_with_the_sound_alone(folder, make_record):
    """Six sounds are asked what a row of a benchmark asks; one of them is the benchmark's."""
    records = [make_record(id=str(i), audio=(Clip(str(folder / f"{i}.wav")),)) for i in range(6)]
    write_records(folder / "some.jsonl", records)
    row = {"question": records[0].question, "choices": records[0].choices, "id": "m1"}
    (folder / "bench.json").write_text(json.dumps([row]))
    (folder / "heard").mkdir()
    (folder / "heard/x.wav").write_bytes((folder / "3.wav").read_bytes())
    plan = Cleaning(
        against=(str(folder / "bench.json"),), against_audio=(str(folder / "heard"),), workers=1
    )
    report = clean([folder / "some.jsonl"], folder / "out", plan)
    assert report["kept"] == 5 and report["dropped"] == {"sound of a benchmark": 1}
    assert report["templates"]["records"] == 5
    assert report["templates"]["first"][0].startswith("0 of bench.json row 1 m1: question 100")


def test_nothing_left_is_told_and_reported(folder, make_record):
    bad = dataclasses.replace(make_record(), audio=(Clip(str(folder / "bad.wav")),))
    write_records(folder / "bad.jsonl", [bad])
    with pytest.raises(InputError, match="no record is left of 1"):
        clean([folder / "bad.jsonl"], folder / "out", Cleaning(workers=1))
    assert json.loads((folder / "out/report.json").read_text())["dropped"] == {
        "sound unreadable": 1
    }


def test_no_folder_of_sounds(folder):
    for name, told in (("none", "no such folder"), ("empty", "holds no audio file")):
        (folder / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=told):
            clean([], folder / "out", Cleaning(against_audio=(str(folder / name),)))
