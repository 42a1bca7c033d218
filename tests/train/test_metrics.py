import dataclasses
import io
import json
import resource
import struct

import numpy as np
import pytest
import soundfile
from tensorboardX.proto.event_pb2 import Event

from sari_jax.data.records import Clip, Record
from sari_jax.errors import InputError
from sari_jax.train.metrics import (
    Metrics,
    read_held_out,
    read_metrics,
    read_questions,
    read_samples,
)
from sari_jax.train.samples import Sample, described


@pytest.fixture
def records(tmp_path):
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, np.zeros(1600, np.float32), 16_000)
    known = dict(choices=("cat", "dog"), task="sound", source="made here", licence="CC0-1.0")
    return [
        Record("q0", (Clip(str(clip)),), "Which?", answer_index=1, pass_rate=0.25, **known),
        Record("q1", (Clip(str(clip), 0.02, 0.08),), "<b>Who?</b>", answer_index=0, **known),
    ]


def completions(text):
    scores = [{"format": 0.0, "accuracy": 1.0, "total": 1.0}] * 2
    return described(
        [text, "no"], np.array([3, 1]), np.array([True, False]), scores, np.array([0.5, -0.5])
    )


def test_rows_past_the_checkpoint_are_cut_when_a_run_resumes(tmp_path, records):
    metrics = Metrics(tmp_path, start=0)
    metrics.examine(0, {"accuracy": 0.0})
    for step in (1, 2, 3):
        metrics.write(step, {"loss": float(step)})
        metrics.ask(step, records, [0.5, 1.0] if step == 1 else [])
        metrics.sample(step, [Sample(1, completions("<b>x</b>"))], records)
    metrics.examine(3, {"accuracy": 0.5})
    metrics.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # the kill came here

    metrics = Metrics(tmp_path, start=3)
    metrics.write(3, {"loss": 30.0})
    metrics.close()
    assert read_metrics(tmp_path) == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 2.0},
        {"step": 3, "loss": 30.0},
    ]
    asked = {"ids": ["q0", "q1"], "scored": [0.25, None]}
    assert read_questions(tmp_path) == [
        {"step": 1, **asked, "pass_rates": [0.5, 1.0]},
        {"step": 2, **asked},
    ]
    assert [sample["step"] for sample in read_samples(tmp_path)] == [1, 2]
    assert read_held_out(tmp_path) == [{"step": 0, "accuracy": 0.0}]


LONG = "x" * 5000


@pytest.fixture
def full_disk():
    """No file may grow over 4,096 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "name, write",
    {
        "metrics": lambda metrics, _: metrics.write(1, {LONG: 0.5}),
        "held_out": lambda metrics, _: metrics.examine(1, {LONG: 0.5}),
        "questions": lambda metrics, records: metrics.ask(1, records, [0.5] * 1000),
        "skipped": lambda metrics, _: metrics.skip(1, {"q0": LONG}),
        "samples": lambda metrics, records: metrics.sample(
            1, [Sample(0, completions(LONG))], records
        ),
    }.items(),
)
def test_a_full_disk_is_told_in_one_line(name, write, tmp_path, records, full_disk):
    metrics = Metrics(tmp_path, start=0)
    told = rf"{name}\.jsonl: cannot be written \(File too large\); make room, and the same command"
    with pytest.raises(InputError, match=told):
        write(metrics, records)
    with pytest.raises(InputError, match=told):  # what could not be written is tried once more
        metrics.close()
    assert all(file.closed for file in metrics._files)


def test_a_folder_that_is_gone_is_told(tmp_path):
    with pytest.raises(InputError, match="metrics.jsonl: cannot be written"):
        Metrics(tmp_path / "gone", start=0)


def test_a_sample_holds_all_that_a_page_shows(tmp_path, records):
    metrics = Metrics(tmp_path, start=0)
    metrics.sample(7, [Sample(1, completions("a\nb"))], records, "held_out")
    metrics.close()
    (told,) = read_samples(tmp_path)
    assert told == {
        "step": 7,
        "split": "held_out",
        "id": "q1",
        "question": "<b>Who?</b>",
        "choices": ["cat", "dog"],
        "answer": "cat",
        "audio": [{"path": records[1].audio[0].path, "start": 0.02, "end": 0.08}],
        "task": "sound",
        "source": "made here",
        "completions": [
            {
                "text": "a\nb",
                "done": True,
                "tokens": 3,
                "format": 0.0,
                "accuracy": 1.0,
                "total": 1.0,
            }
            | {"advantage": 0.5},
            {
                "text": "no",
                "done": False,
                "tokens": 1,
                "format": 0.0,
                "accuracy": 1.0,
                "total": 1.0,
            }
            | {"advantage": -0.5},
        ],
    }


def test_tensorboard_has_curves_text_that_is_no_markup_and_sound(tmp_path, records):
    metrics = Metrics(tmp_path, start=0)
    metrics.write(1, {"reward": 0.5})
    metrics.examine(1, {"accuracy": 0.25})
    records[1] = dataclasses.replace(records[1], question="Which?\n\n# Big [link](x)")
    metrics.sample(1, [Sample(1, completions("<b>x</b>\n# y\r\r# z"))], records)
    metrics.close()
    found = {value.tag: value for value in shown(tmp_path / "tensorboard")}
    assert found["reward"].simple_value == 0.5
    assert found["held_out/accuracy"].simple_value == 0.25
    lines = found["train/0/text_summary"].tensor.string_val[0].decode().split("\n")
    assert {"    <b>x</b>", "    # y", "    # z", "    # Big [link](x)"} <= set(lines)
    assert all(line.startswith("    ") and "\r" not in line for line in lines)
    waveform, rate = soundfile.read(io.BytesIO(found["train/0"].audio.encoded_audio_string))
    assert rate == 16_000 and len(waveform) == 960


def shown(folder):
    """Every value in a folder's event files, which hold records of (length, checksum, event, checksum)."""
    (file,) = folder.iterdir()
    data, at, values = file.read_bytes(), 0, []
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        event = Event.FromString(data[at + 12 : at + 12 + size])
        values += event.summary.value
        at += 12 + size + 4
    return values


def test_no_file_is_no_rows(tmp_path):
    assert read_metrics(tmp_path) == []
    assert json.dumps(read_samples(tmp_path)) == "[]"
