"""Messages of ms-swift, LLaMA-Factory and ShareGPT."""

import pytest

from sari_jax.data.ledger import Drop
from sari_jax.data.records import Clip
from sari_jax.data.sources import swift


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
    }
    assert found.records["swift-swift-a.wav"].chain_free == "It barks."
    assert found.drops == [
        (5, "no choices in the question"),
        (6, "not one question and one answer"),
        (7, "audio tags and sounds differ in number"),
        (8, "sound file missing"),
        (9, "bad field"),
        (10, "not one question and one answer"),
    ]
    assert found.report["read"] == 10


def test_what_is_asked_of_an_input():
    row = {"instruction": "Which is it?", "input": "<audio>\nA. x\nB. y", "output": "B"}
    assert swift.turn(row | {"audios": "a.wav"}) == ("Which is it?\n\nA. x\nB. y", "B", ["a.wav"])


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
