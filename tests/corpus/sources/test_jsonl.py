"""Our own JSON lines: what is right is kept as it is, but for the licence that the user names."""

from sari_jax.corpus.captions import Caption
from sari_jax.data.records import Clip, Record


def test_the_sample(built):
    found = built("jsonl")
    a, b = (str(found.sounds / name) for name in ("a.wav", "b.wav"))
    same = dict(source="made up", licence="CC0-1.0")
    one = dict(id="one", question="Which animal?", choices=("cat", "dog"), answer_index=1)
    two = dict(id="one-2", question="Which tone?", choices=("high", "low"), answer_index=0)
    assert found.records == {
        "one": Record(audio=(Clip(a, 0.1, 0.4),), task="sound", pass_rate=0.25, **one, **same),
        "one-2": Record(audio=(Clip(b),), task="music", **two, **same),
    }
    caption = Caption("two", (Clip(b),), "music", caption="A tone.", labels=("tone",), **same)
    assert found.captions == {"two": caption}
    assert found.drops == [
        (4, "bad field"),
        (5, "sound file missing"),
        (6, "bad field"),
        (7, "bad line"),
    ]
    assert found.report["read"] == 7


def test_a_licence_for_all(built):
    found = built("jsonl", licence="of my own")
    assert set(found.records) == {"one", "one-2", "three"}
    items = [*found.records.values(), *found.captions.values()]
    assert {item.licence for item in items} == {"of my own"}
    assert found.report["licences"] == {"of my own": 4}
