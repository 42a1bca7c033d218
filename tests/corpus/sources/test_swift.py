"""Messages of ms-swift, LLaMA-Factory and ShareGPT."""

import pytest

from sari_jax.corpus.sources import swift
from sari_jax.data.ledger import Drop
from sari_jax.data.records import Clip


def test_the_sample(built):
    found = built("swift")
    a, b = (Clip(str(found.sounds / name)) for name in ("a.wav", "b.wav"))
    asked = {
        name: (record.audio, record.question, record.choices, record.answer_index, record.task)
        for name, record in found.records.items()
    }
    assert asked == {
        "swift-swift-a.wav": ((a,), "Which animal is heard?", ("dog", "hen's chick"), 0, "sound"),
        "swift-pair": ((a, b), "Which clip is louder?", ("the first", "the second"), 1, "sound"),
        "swift-swift-b.wav": ((b,), "Who sings?", ("a man", "a choir"), 1, "music"),
        "swift-swift-b.wav-2": ((b,), "Is it raining?", ("yes", "no"), 1, "sound"),
        "swift-higher": ((a, b), "Is Audio 1 higher than Audio 2?", ("yes", "no"), 1, "sound"),
    }
    assert found.records["swift-swift-a.wav"].chain_free == "It barks."
    assert found.drops == [
        (5, "no choices in the question"),
        (6, "not one question and one answer"),
        (7, "audio tags and sounds differ in number"),
        (8, "sound file missing"),
        (9, "bad field"),
        (10, "not one question and one answer"),
        (12, "image or video"),
        (13, "tags left in the text"),
        (14, "sound not on this disk"),
    ]
    assert found.report["read"] == 14


def test_what_is_asked_of_an_input():
    row = {"instruction": "Which is it?", "input": "<audio>\nA. x\nB. y", "output": "B"}
    assert swift.turn(row | {"audios": "a.wav"}) == ("Which is it?\n\nA. x\nB. y", "B", ["a.wav"])


QUESTION = "Which? (A) x (B) y"
SOUNDS = {
    "one": ({"audio": "a.wav"}, ["a.wav"]),
    "two": ({"audios": ["a.wav", "b c.wav"]}, ["a.wav", "b c.wav"]),
    "an object": ({"audio": {"path": "a.wav", "bytes": None}}, ["a.wav"]),
    "objects": ({"audios": [{"path": "a.wav"}, {"url": "/b.wav"}]}, ["a.wav", "/b.wav"]),
    "nested": ({"audios": [{"audio_url": {"url": "file:///x/a%20b.wav"}}]}, ["/x/a b.wav"]),
    "addresses": ({"audio_url": "file://localhost/a.wav"}, ["/a.wav"]),
    "a relative address": ({"audios": ["file://sub/a.wav"]}, ["sub/a.wav"]),
    "a last resort": ({"path": "a.wav", "url": "https://where.it/came/from"}, ["a.wav"]),
    "not the last": ({"audios": ["a.wav"], "url": "https://where.it/came/from"}, ["a.wav"]),
    "twice the same": (
        {"audios": ["a.wav"], "query": f"<audio>a.wav</audio>{QUESTION}"},
        ["a.wav"],
    ),
    "in the text": ({"query": f"Audio 1: <audio>x/a b.wav</audio>\n{QUESTION}"}, ["x/a b.wav"]),
    "an address in the text": ({"query": f"<audio>file:///a.wav</audio>{QUESTION}"}, ["/a.wav"]),
    "without history": ({"audios": ["a.wav"], "history": []}, ["a.wav"]),
    "without images": ({"audios": ["a.wav"], "images": [], "image": None}, ["a.wav"]),
}


@pytest.mark.parametrize(("given", "sounds"), SOUNDS.values(), ids=SOUNDS)
def test_how_sounds_are_named(given, sounds):
    row = {"query": QUESTION, "response": "A"} | given
    assert swift.turn(row) == (QUESTION, "A", sounds)


def said(*parts) -> dict:
    return {"messages": [{"role": "user", "content": list(parts)}], "solution": "A"}


def sound(path: str | None = None, **more) -> dict:
    return {"type": "audio", **({"audio": path} if path else {}), **more}


def words(text: str) -> dict:
    return {"type": "text", "text": text}


PARTS = {
    "first": (said(sound("a.wav"), words("Who?")), "Who?", ["a.wav"]),
    "last": (said(words("Who?"), sound("a.wav")), "Who?", ["a.wav"]),
    "within": (
        said(words("Is "), sound("a.wav"), words(" higher than"), sound("b.wav"), words("?")),
        "Is Audio 1 higher than Audio 2?",
        ["a.wav", "b.wav"],
    ),
    "marked": (said(sound("a.wav"), words("Is <audio> high?")), "Is Audio 1 high?", ["a.wav"]),
    "bare": (said({"audio": "a.wav"}, {"text": "Who?"}), "Who?", ["a.wav"]),
    "a text": (said("Who?", sound("a.wav")), "Who?", ["a.wav"]),
    "an address": (
        said({"type": "audio_url", "audio_url": {"url": "file:///a.wav"}}, words("Who?")),
        "Who?",
        ["/a.wav"],
    ),
    "path": (said(sound(path="a.wav"), words("Who?")), "Who?", ["a.wav"]),
    "url": (said(sound(url="a.wav"), words("Who?")), "Who?", ["a.wav"]),
    "elsewhere": (said(sound(), words("Who?")) | {"audios": ["a.wav"]}, "Who?", ["a.wav"]),
}


@pytest.mark.parametrize(("row", "asked", "sounds"), PARTS.values(), ids=PARTS)
def test_messages_in_parts(row, asked, sounds):
    assert swift.turn(row) == (asked, "A", sounds)


TWO = {"audios": ["a.wav", "b.wav"]}
OTHERS = [
    ({"history": [["Hello", "Hi"]]}, "not one question and one answer"),
    ({"images": ["a.png"]}, "image or video"),
    ({"query": f"<image><audio>{QUESTION}"}, "image or video"),
    ({"query": f"<audio><audio>{QUESTION}"}, "audio tags and sounds differ in number"),
    ({"query": f"Is <audio> high? {QUESTION}"} | TWO, "audio tags and sounds differ in number"),
    ({"query": f"<audio><|im_end|>{QUESTION}"}, "tags left in the text"),
    ({"response": "<audio>"}, "tags left in the text"),
    ({"query": f"<audio>b.wav</audio>{QUESTION}"}, "bad field"),
    ({"audios": [{"path": "a.wav", "start": 3}]}, "bad field"),
    ({"audios": ["https://a.b/c.wav"]}, "sound not on this disk"),
    ({"audios": ["s3://bucket/c.wav"]}, "sound not on this disk"),
    ({"audios": ["data:audio/wav;base64,UklG"]}, "sound not on this disk"),
    ({"audios": [{"bytes": "UklG", "path": None}]}, "sound not on this disk"),
    ({"audios": [{"array": [0.1], "sampling_rate": 16_000}]}, "sound not on this disk"),
    ({"audios": [{"path": {"x": "a.wav"}}]}, "bad field"),
    (said(sound("a.wav"), {"type": "image", "image": "a.png"}, words("Who?")), "image or video"),
    (said(sound("a.wav"), {"type": "tool", "x": 1}, words("Who?")), "bad field"),
    (said(sound("a.wav"), 3, words("Who?")), "bad field"),
    (said(sound("a.wav"), sound(), words("Who?")), "audio tags and sounds differ in number"),
    (
        said({"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}),
        "sound not on this disk",
    ),
]


@pytest.mark.parametrize(("changed", "reason"), OTHERS)
def test_what_is_more_than_a_question_about_sounds_on_disk(changed, reason):
    row = {"query": QUESTION, "response": "A", "audios": ["a.wav"]}
    with pytest.raises(Drop) as caught:
        swift.turn(row | changed)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": "hello", "audios": ["a.wav"]}, "bad field"),
        ({"messages": [1], "audios": ["a.wav"]}, "bad field"),
        ({"messages": [{"role": "user", "content": 3}], "audios": ["a.wav"]}, "bad field"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "not one question and one answer"),
        ({"messages": [{"role": [], "content": "x"}]}, "not one question and one answer"),
        ({"messages": [{"role": "system", "content": "x"}]}, "not one question and one answer"),
        ({"audios": ["a.wav"]}, "bad field"),
        ({"query": "x", "response": "y", "audios": ["a.wav", 3]}, "bad field"),
        ({"query": "x", "response": "y", "audio": {"bytes": ""}}, "bad field"),
    ],
)
def test_rows_of_another_form(row, reason):
    with pytest.raises(Drop) as caught:
        swift.turn(row)
    assert caught.value.reason == reason
