import os
import signal
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile

from sari_jax.corpus.clean import decoding
from sari_jax.corpus.clean.decoding import fingerprint_clip, fingerprint_clips
from sari_jax.corpus.clean.fingerprint import Fingerprint
from sari_jax.data.ledger import Drop
from sari_jax.data.records import Clip


@pytest.fixture
def tone(tmp_path):
    def write(name: str, seconds: float = 1.0, gain: float = 0.5) -> Clip:
        wave = gain * np.sin(np.arange(int(16_000 * seconds)) ** 1.2)
        soundfile.write(tmp_path / name, wave, 16_000)
        return Clip(str(tmp_path / name))

    return write


def test_why_a_clip_cannot_be_used(tone, tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    cases = {
        "sound too long": (tone("long.wav", 3), 2),
        "sound too short": (tone("short.wav", 0.02), 2),
        "sound silent": (tone("still.wav", gain=1e-5), 2),
        "sound unreadable": (Clip(str(tmp_path / "text.wav")), 2),
    }
    for reason, (clip, longest) in cases.items():
        with pytest.raises(Drop) as caught:
            fingerprint_clip(clip, longest)
        assert caught.value.reason == reason and clip.path in str(caught.value)
    assert fingerprint_clip(Clip(cases["sound too long"][0].path, 1, 2), 2).samples == 16_000


def test_what_many_processes_hear_stands_in_order(tone):
    clips = [tone(f"{i}.wav", 0.1 + i / 10) for i in range(6)] + [Clip("none.wav")]
    found = fingerprint_clips(clips, longest=30, workers=2)
    assert [f.samples for f in found[:6]] == [1600 * (i + 1) for i in range(6)]
    assert found[6].reason == "sound unreadable"
    assert fingerprint_clips([], longest=30) == []


def busy(line, longest):
    """A worker in whose decoder some files crash, or hang."""
    line.send("ready")
    while True:
        try:
            clip = line.recv()
        except EOFError:
            return
        name = Path(clip.path).name
        if "crash" in name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hang" in name:
            time.sleep(600)
        line.send(fingerprint_clip(clip, longest))


def test_a_decoder_that_crashes_or_hangs_takes_its_clip_alone(tone, monkeypatch):
    monkeypatch.setattr(decoding, "_work", busy)
    monkeypatch.setattr(decoding.multiprocessing, "get_context", forked)
    names = ["a.wav", "crash1.wav", "b.wav", "hang.wav", "crash2.wav", "c.wav"]
    found = fingerprint_clips([tone(name) for name in names], longest=30, workers=2, patience=3.0)
    assert [isinstance(f, Fingerprint) for f in found] == [True, False, True, False, False, True]
    assert found[1].reason == found[4].reason == "sound crashes the decoder"
    assert "crash1.wav" in str(found[1]) and found[3].reason == "sound takes too long to decode"


def dead(line, longest):
    os._exit(3)


def test_workers_that_never_start_are_no_endless_loop(tone, monkeypatch):
    monkeypatch.setattr(decoding, "_work", dead)
    monkeypatch.setattr(decoding.multiprocessing, "get_context", forked)
    with pytest.raises(RuntimeError, match="do not start"):
        fingerprint_clips([tone("a.wav")], longest=30, workers=1)


def brief(line, longest):
    """A worker that ends after each answer."""
    line.send("ready")
    clip = line.recv()
    line.send(fingerprint_clip(clip, longest))
    line.close()
    os._exit(0)


class Slow(decoding.tqdm):
    """Gives a worker the time to end after its answer."""

    def update(self, n=1):
        time.sleep(0.3)
        return super().update(n)


def test_a_worker_that_dies_idle_takes_no_clip(tone, monkeypatch):
    monkeypatch.setattr(decoding, "_work", brief)
    monkeypatch.setattr(decoding, "tqdm", Slow)
    monkeypatch.setattr(decoding.multiprocessing, "get_context", forked)
    clips = [tone(f"{i}.wav", 0.1 + i / 10) for i in range(6)]
    found = fingerprint_clips(clips, longest=30, workers=1)
    assert [f.samples for f in found] == [1600 * (i + 1) for i in range(6)]


def test_an_error_of_our_own_is_no_fault_of_the_file(tone, monkeypatch):
    monkeypatch.setattr(decoding, "fingerprint", lambda waveform: waveform.nothing_of_the_kind)
    monkeypatch.setattr(decoding.multiprocessing, "get_context", forked)
    with pytest.raises(RuntimeError, match=r"a\.wav(.|\n)*nothing_of_the_kind"):
        fingerprint_clips([tone("a.wav")], longest=30, workers=1)


def greedy(waveform):
    """Takes address space that a machine would give, as it is not written to."""
    np.empty(8 * 2**30, np.uint8)
    raise AssertionError("it was given")


def test_a_worker_takes_no_more_memory_than_it_may(tone, monkeypatch):
    monkeypatch.setattr(decoding, "fingerprint", greedy)
    monkeypatch.setattr(decoding.multiprocessing, "get_context", forked)
    (found,) = fingerprint_clips([tone("a.wav")], longest=30, workers=1)
    assert found.reason == "sound unreadable" and "more memory" in str(found)


class Enough(Exception):
    pass


@pytest.mark.parametrize(("cores", "most"), [(2, 2), (100, 32)])
def test_as_many_workers_as_cores_are_ours(cores, most, monkeypatch):
    def due(running):
        raise Enough(len(running))

    monkeypatch.setattr(decoding, "_start", lambda context, longest: context.worker())
    monkeypatch.setattr(decoding.multiprocessing, "get_context", lambda kind: Mock())
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.setattr(decoding, "_due", due)
    with pytest.raises(Enough, match=f"^{most}$"):
        fingerprint_clips([Clip("a.wav")] * 200, longest=30)


SPAWN = decoding.multiprocessing.get_context("spawn")


def forked(kind: str):
    """This module is not importable by its path in a new process: its functions go by fork."""
    assert kind == "spawn"
    return Forked()


class Forked(type(SPAWN)):
    Process = decoding.multiprocessing.get_context("fork").Process
