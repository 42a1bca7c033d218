import json

import pytest

from sari_jax.corpus.captions import Caption, read_captions, write_captions
from sari_jax.data.jsonl import plain
from sari_jax.data.ledger import Ledger
from sari_jax.data.records import Clip


def make(**changes) -> Caption:
    fields = dict(
        id="c1", audio=(Clip("dog.wav"),), task="sound", source="mine", licence="CC0-1.0",
        caption="A dog barks.", labels=("Bark",),
    )  # fmt: skip
    return Caption(**fields | changes)


def test_what_is_written_is_read_again(tmp_path):
    (tmp_path / "dog.wav").write_bytes(b"x")
    captions = [make(), make(id="c2", caption=None, labels=())]
    write_captions(tmp_path / "a.jsonl", captions)
    clip = (Clip(str(tmp_path / "dog.wav")),)
    assert read_captions(tmp_path / "a.jsonl") == [
        make(audio=clip),
        make(id="c2", audio=clip, caption=None, labels=()),
    ]


@pytest.mark.parametrize(
    "changes",
    [{"task": "noise"}, {"licence": " "}, {"caption": 3}, {"labels": "Bark"}, {"audio": []}],
)
def test_what_is_not_a_caption_is_counted(tmp_path, changes):
    (tmp_path / "dog.wav").write_bytes(b"x")
    lines = [plain(make()), plain(make(id="c2")) | changes]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ledger = Ledger()
    assert len(read_captions(tmp_path / "a.jsonl", ledger=ledger)) == 1
    assert ledger.report()["dropped"] == {"bad line": 1}


def test_missing_sound(tmp_path):
    write_captions(tmp_path / "a.jsonl", [make()])
    assert read_captions(tmp_path / "a.jsonl", ledger=(ledger := Ledger())) == []
    assert ledger.report()["dropped"] == {"sound file missing": 1}
    assert len(read_captions(tmp_path / "a.jsonl", check_audio=False)) == 1
