import numpy as np
import pytest
import soundfile

from sari_jax.report.experiment import Run
from sari_jax.report.rollouts import (
    NO_ROOM,
    SHARES,
    add_sounds,
    browse,
    chosen,
    spans,
)

ALL = SHARES[0]


def row(step, name, split="train", clip="a.wav", **more):
    one = {
        "text": "<answer>cat</answer>",
        "done": True,
        "tokens": 3,
        "accuracy": 1.0,
        "total": 2.0,
    }
    asked = {"question": "Which?", "choices": ["cat", "dog"], "answer": "cat", "task": "sound"}
    clips = {"audio": [{"path": str(clip)}]}
    return {"step": step, "split": split, "id": name, **asked, **clips, "completions": [one]} | more


def run(name, samples):
    settings = {"stage": "grpo"}
    return Run(name=name, settings=settings, metrics=[], questions=[], samples=samples, held_out=[])


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("plain", [["", "plain"]]),
        (
            "<think><planning>p</planning>?</think><answer>cat</answer>!",
            [
                *(["tag", "<think>"], ["tag", "<planning>"], ["planning", "p"]),
                *(["tag", "</planning>"], ["think", "?"], ["tag", "</think>"]),
                *(["tag", "<answer>"], ["answer", "cat"], ["tag", "</answer>"], ["", "!"]),
            ],
        ),
        ("</think>a", [["tag", "</think>"], ["", "a"]]),
        (
            "<think><caption>a</think>b",
            [["tag", "<think>"], ["tag", "<caption>"], ["caption", "a"], ["tag", "</think>"]]
            + [["", "b"]],
        ),
        ("<b>x</b><script>", [["", "<b>x</b><script>"]]),
    ],
)
def test_a_completion_in_sections(text, pieces):
    assert spans(text) == pieces
    assert "".join(piece for _, piece in spans(text)) == text


def test_a_question_is_there_once_with_all_its_visits():
    samples = [row(0, "q", "held_out"), row(1, "q"), row(9, "q", "held_out"), row(1, "r")]
    questions = browse([run("a", samples), run("b", samples[:1])], ALL)
    assert [question["id"] for question in questions] == ["q", "r"]
    visits = [(v["run"], v["step"], v["split"]) for v in questions[0]["visits"]]
    assert visits == [(0, 0, "held_out"), (0, 1, "train"), (0, 9, "held_out"), (1, 0, "held_out")]
    (one,) = questions[0]["visits"][0]["completions"]
    assert one["answer"] == "cat" and one["rewards"] == {"accuracy": 1.0} and one["total"] == 2
    other = browse([run("a", [row(1, "q"), row(1, "q", question="Another?")])], ALL)
    assert len(other) == 2  # two corpora may number their questions alike


def test_samples_of_a_long_run_are_chosen_evenly():
    training = [row(step, f"t{i}") for step in range(100) for i in range(20)]
    others = [row(step, f"h{i}", "held_out") for step in range(50) for i in range(60)]
    found = chosen(training + others, ALL)
    steps = sorted({r["step"] for r in found if r["split"] == "train"})
    assert len(steps) == ALL.steps and steps[0] == 0 and steps[-1] == 99
    assert max(np.diff(steps)) - min(np.diff(steps)) <= 1
    assert sum(r["split"] == "train" for r in found) == ALL.steps * ALL.per_step
    assert sum(r["split"] == "held_out" for r in found) == ALL.held_out * ALL.times
    assert {r["step"] for r in found if r["split"] == "held_out"} >= {0, 49}
    sizes = [len(chosen(training + others, share)) for share in SHARES]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] == 2


def test_sounds_are_added_until_there_is_no_room(tmp_path):
    clips = [tmp_path / f"{i}.wav" for i in range(4)]
    for clip in clips[:3]:
        soundfile.write(clip, np.random.default_rng(0).uniform(-0.5, 0.5, 16_000), 16_000)
    samples = [row(1, str(i), clip=clip) for i, clip in enumerate((*clips, clips[1]))]
    samples += [row(2, "1", clip=clips[1])]  # asked twice, and so first
    samples += [row(2, "3", clip=clips[3]), row(3, "3", clip=clips[3])]
    questions = browse([run("a", samples)], ALL)
    sounds, counts = add_sounds(questions, 15_000)
    assert len(sounds) == 1 and sounds[0].mp3.startswith("data:audio/mpeg")
    assert counts == {"clips": 5, "clips_left_out": 2, "clips_missing": 1}
    first, second, third, fourth, again = (question["clips"][0] for question in questions)
    assert first == {"name": "0.wav", "lacks": NO_ROOM} == third | {"name": "0.wav"}
    assert second == again == {"name": "1.wav", "sound": 0}
    assert "3.wav" in fourth["lacks"] and fourth["name"] == "3.wav" and len(fourth) == 2
