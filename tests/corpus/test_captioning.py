"""With an engine that says what it is told to; cli/test_synthesize.py captions with a real model."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sari_jax.audio.clips import load_clip
from sari_jax.corpus.captioning import (
    NO_SENTENCE,
    UNREADABLE,
    Captioning,
    whole_sentences,
    write_missing,
)
from sari_jax.corpus.captions import Caption, read_captions
from sari_jax.corpus.synthesize.templates import Prompts
from sari_jax.data.ledger import Ledger
from sari_jax.data.processor import Example
from sari_jax.data.records import Clip
from sari_jax.errors import InputError
from sari_jax.generate.engine import Answered, Engine
from sari_jax.generate.sampling import Sampler


def answered(example: Example, text: str, done: bool) -> Answered:
    return Answered(example=example, texts=[text], token_ids=[[1]], logprobs=[[0.0]], done=[done])


class Scripted(Engine):
    """Says of each example how loud it is, and stops for good after some batches."""

    def __init__(self, processor, batches: int = 99):
        self.processor, self.left = processor, batches
        self.asked: list[Example] = []

    def answer(self, examples, sampler, shapes, *, rows, seed=0):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        assert isinstance(sampler, Sampler) and len(examples) <= rows
        for example in examples:
            self.asked.append(example)
            loudest = round(float(np.abs(example.waveforms[0]).max()), 1)
            yield answered(example, f" A tone\nof {loudest}. ", True)


@pytest.fixture
def clips(tmp_path) -> list[Caption]:
    """Seven clips; the third has a caption, the fifth is no sound."""
    found = []
    for i in range(7):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, (i + 1) / 10 * np.sin(np.arange(4000) / 3), 16_000)
        said = "Given before." if i == 2 else None
        found.append(Caption(f"clip{i}", (Clip(str(path)),), "sound", "made up", "CC0-1.0", said))
    (tmp_path / "4.wav").write_bytes(b"no sound")
    return found


def run(engine, clips, out: Path, **changed) -> tuple[list[Caption], Ledger]:
    ledger = Ledger()
    values = {"model": "/models/a", "prompts": Prompts(), "rows": 2} | changed
    return write_missing(engine, clips, out, ledger, Captioning(**values)), ledger


def test_what_is_missing_is_filled_in(nano_processor, clips, tmp_path):
    engine, out = Scripted(nano_processor), tmp_path / "out.jsonl"
    written, ledger = run(engine, clips, out)
    said = [caption.caption for caption in written]
    assert said == [
        "A tone of 0.1.", "A tone of 0.2.", "Given before.", "A tone of 0.4.", None,
        "A tone of 0.6.", "A tone of 0.7.",
    ]  # fmt: skip
    assert ledger.report() == {"read": 7, "kept": 6, "dropped": {UNREADABLE: 1}}
    assert read_captions(out) == written
    assert [caption.id for caption in written] == [caption.id for caption in clips]
    assert all("Describe what is heard" in example.text for example in engine.asked)
    assert [example.index for example in engine.asked] == [0, 1, 3, 5, 6]
    assert not list(tmp_path.glob(".out*"))


def test_interrupted_it_goes_on_with_the_rest(nano_processor, clips, tmp_path):
    out = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(Scripted(nano_processor, batches=2), clips, out)
    assert not out.exists()
    (progress,) = tmp_path.glob(".out*")
    with progress.open("a") as file:
        file.write('{"id": "clip6", "cap')  # half a line, as a kill may leave it
    engine = Scripted(nano_processor)
    written, ledger = run(engine, clips, out)
    assert [example.index for example in engine.asked] == [5, 6]
    assert ledger.report() == {"read": 7, "kept": 6, "dropped": {UNREADABLE: 1}}
    whole, _ = run(Scripted(nano_processor), clips, tmp_path / "whole.jsonl")
    assert written == whole


@pytest.mark.parametrize("changed", [{"model": "/models/b"}, {"max_tokens": 9}, {"seed": 1}])
def test_of_another_model_nothing_is_taken_up(nano_processor, clips, tmp_path, changed):
    out = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(Scripted(nano_processor, batches=2), clips, out)
    engine = Scripted(nano_processor)
    run(engine, clips, out, **changed)
    assert len(engine.asked) == 5


def test_of_another_sound_with_the_same_id_nothing_is_taken_up(nano_processor, clips, tmp_path):
    out = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(Scripted(nano_processor, batches=2), clips, out)  # takes 0, 1, 3
    other = tmp_path / "other.wav"
    soundfile.write(other, 0.9 * np.sin(np.arange(4000) / 3), 16_000)
    changed = [
        dataclasses.replace(clips[0], audio=(Clip(str(other)),)),
        dataclasses.replace(clips[1], audio=(Clip(clips[1].audio[0].path, 0.1),)),
        clips[3],
    ]
    engine = Scripted(nano_processor)
    written, _ = run(engine, changed, out)
    assert written[0].caption == "A tone of 0.9." and len(engine.asked) == 2


def test_what_is_dropped_stands_beside(nano_processor, clips, tmp_path):
    _, ledger = run(Scripted(nano_processor), clips, tmp_path / "out.jsonl")
    (line,) = (tmp_path / "out.dropped.jsonl").read_text().splitlines()
    assert json.loads(line)["where"] == "clip4" and json.loads(line)["reason"] == UNREADABLE
    report = json.loads((tmp_path / "out.report.json").read_text())
    assert report == ledger.report() | {"model": "/models/a"}


def test_what_is_there_is_not_written_over(nano_processor, clips, tmp_path):
    out, engine = tmp_path / "out.jsonl", Scripted(nano_processor)
    out.write_text("mine")
    with pytest.raises(InputError, match="exists; name another --out"):
        run(engine, clips, out)
    assert out.read_text() == "mine" and not engine.asked


def test_no_more_is_decoded_than_the_model_takes(nano_processor, clips, tmp_path, monkeypatch):
    asked = []

    def listening(*args, longest, **rest):
        asked.append(longest)
        return load_clip(*args, longest=longest, **rest)

    monkeypatch.setattr("sari_jax.corpus.captioning.load_clip", listening)
    monkeypatch.setattr(nano_processor, "seconds", 1)
    soundfile.write(clips[0].audio[0].path, np.ones(20_000) / 2, 16_000)
    _, ledger = run(Scripted(nano_processor), clips[:2], tmp_path / "out.jsonl")
    assert asked == [1, 1]
    (dropped,) = ledger.dropped
    assert dropped.reason == UNREADABLE and "longer than the limit of 1 s" in dropped.detail


def test_a_completion_that_says_nothing_is_counted(nano_processor, clips, tmp_path):
    class Silent(Scripted):
        def answer(self, examples, sampler, shapes, *, rows, seed=0):
            for example in examples:
                yield answered(example, "A tone without an", False)

    written, ledger = run(Silent(nano_processor), clips[:2], tmp_path / "out.jsonl")
    assert [caption.caption for caption in written] == [None, None]
    assert ledger.report()["dropped"] == {NO_SENTENCE: 2}
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["id"] == "clip0"


def test_a_place_that_cannot_be_written(nano_processor, clips, tmp_path):
    with pytest.raises(InputError, match="cannot be written.*name another --out"):
        run(Scripted(nano_processor), clips, tmp_path / "nowhere" / "out.jsonl")


@pytest.mark.parametrize(
    "text, ended, whole",
    [
        ("A dog barks", True, "A dog barks"),
        (" A dog\n barks. ", True, "A dog barks."),
        ("It barks at 3.5 Hz. Then a", False, "It barks at 3.5 Hz."),
        ("It barks! Is it", False, "It barks!"),
        ("A dog barks at", False, None),
        (" \n", True, None),
        ("half \ud83d", True, "half ?"),
    ],
)
def test_whole_sentences(text, ended, whole):
    example = Example(text="", tokens=np.zeros(1, np.int32), waveforms=())
    assert whole_sentences(answered(example, text, ended)) == whole
