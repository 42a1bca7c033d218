import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sari_jax.data.clean import sounds
from sari_jax.data.clean.fingerprint import Fingerprint
from sari_jax.data.clean.sounds import hear, listen
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
            hear(clip, longest)
        assert caught.value.reason == reason and clip.path in str(caught.value)
    assert hear(Clip(cases["sound too long"][0].path, 1, 2), 2).samples == 16_000


def test_what_many_processes_hear_stands_in_order(tone):
    clips = [tone(f"{i}.wav", 0.1 + i / 10) for i in range(6)] + [Clip("none.wav")]
    found = listen(clips, longest=30, workers=2)
    assert [f.samples for f in found[:6]] == [1600 * (i + 1) for i in range(6)]
    assert found[6].reason == "sound unreadable"
    assert listen([], longest=30) == []


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
        line.send(hear(clip, longest))


def test_a_decoder_that_crashes_or_hangs_takes_its_clip_alone(tone, monkeypatch):
    monkeypatch.setattr(sounds, "_work", busy)
    monkeypatch.setattr(sounds.multiprocessing, "get_context", forked)
    names = ["a.wav", "crash1.wav", "b.wav", "hang.wav", "crash2.wav", "c.wav"]
    found = listen([tone(name) for name in names], longest=30, workers=2, patience=3.0)
    assert [isinstance(f, Fingerprint) for f in found] == [True, False, True, False, False, True]
    assert found[1].reason == found[4].reason == "sound crashes the decoder"
    assert "crash1.wav" in str(found[1]) and found[3].reason == "sound takes too long to decode"


def dead(line, longest):
    os._exit(3)


def test_workers_that_never_start_are_no_endless_loop(tone, monkeypatch):
    monkeypatch.setattr(sounds, "_work", dead)
    monkeypatch.setattr(sounds.multiprocessing, "get_context", forked)
    with pytest.raises(RuntimeError, match="do not start"):
        listen([tone("a.wav")], longest=30, workers=1)


SPAWN = sounds.multiprocessing.get_context("spawn")


def forked(kind: str):
    """This module is not importable by its path in a new process: its functions go by fork."""
    assert kind == "spawn"
    return Forked()


class Forked(type(SPAWN)):
    Process = sounds.multiprocessing.get_context("fork").Process
