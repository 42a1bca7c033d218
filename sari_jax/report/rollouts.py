"""Questions with the completions and rewards of each step, and their audio, for the page's browser."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from sari_jax.data.styles import style
from sari_jax.errors import InputError
from sari_jax.report.experiment import Run
from sari_jax.report.sounds import Sound, read_sound


class Share(NamedTuple):
    """The amount of a run that a page shows.

    Attributes:
        steps: training steps.
        per_step: questions of each training step.
        held_out: held-out questions.
        times: evaluations of each held-out question.
    """

    steps: int
    per_step: int
    held_out: int
    times: int


# A page shows the first of these that it has room for.
SHARES = (
    Share(steps=12, per_step=8, held_out=24, times=12),
    Share(steps=8, per_step=6, held_out=16, times=8),
    Share(steps=6, per_step=4, held_out=8, times=6),
    Share(steps=4, per_step=2, held_out=4, times=4),
    Share(steps=2, per_step=1, held_out=2, times=2),
    Share(steps=1, per_step=1, held_out=1, times=1),
)
NO_ROOM = "left out to keep the page within its size; raise --megabytes to hear it"
# A completion's fields that are no rewards.
KNOWN = ("text", "done", "tokens", "total", "advantage")

_SECTIONS = {tag: section for section, tag in style("structured").section_tags}
_NAMES = {**_SECTIONS, "think": "think", "answer": "answer"}
_TAG = re.compile(f"<(/?)({'|'.join(map(re.escape, _NAMES))})>")


Question = dict[str, Any]


def browse(runs: Sequence[Run], share: Share) -> list[Question]:
    """Returns what the page's browser shows as plain data, still without audio.

    Returns:
        Questions, each with its text, its `clips` and its `visits`. A visit has the index of its `run`, its `step`, its
        `split` and all completions of the question at that step.
    """
    questions: dict[str, Question] = {}
    for place, run in enumerate(runs):
        for row in chosen(run.samples, share):
            name = f"{row['id']} {row['question']} {row['audio']}"
            question = questions.setdefault(name, _question(row))
            question["visits"].append(
                {
                    "run": place,
                    "step": row["step"],
                    "split": row["split"],
                    "completions": [_completion(one) for one in row["completions"]],
                }
            )
    for question in questions.values():
        question["visits"].sort(key=lambda visit: (visit["run"], visit["step"]))
    return list(questions.values())


def chosen(samples: Sequence[dict[str, Any]], share: Share) -> list[dict[str, Any]]:
    """Chooses some of a run's samples, spread evenly over training steps, held-out questions and evaluations."""
    training = [row for row in samples if row["split"] == "train"]
    steps = _spread(sorted({row["step"] for row in training}), share.steps)
    rows = []
    for step in steps:
        rows += _spread([row for row in training if row["step"] == step], share.per_step)
    others = [row for row in samples if row["split"] == "held_out"]
    times = set(_spread(sorted({row["step"] for row in others}), share.times))
    names = set(_spread(list(dict.fromkeys(row["id"] for row in others)), share.held_out))
    return rows + [row for row in others if row["step"] in times and row["id"] in names]


def _spread(items: list[Any], count: int) -> list[Any]:
    """Returns `count` items at even distances: the last is among them, and the first if `count` is 2 or more."""
    if len(items) <= count:
        return items
    if count == 1:
        return items[-1:]
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _question(row: dict[str, Any]) -> Question:
    names = ("id", "question", "choices", "answer", "task", "kind", "difficulty", "source")
    known = {name: row[name] for name in (*names, "pass_rate") if name in row}
    clips = [{"name": Path(clip["path"]).name, "place": clip} for clip in row["audio"]]
    return known | {"clips": clips, "visits": []}


def _completion(one: dict[str, Any]) -> dict[str, Any]:
    rewards = {name: value for name, value in one.items() if name not in KNOWN}
    kept = {name: one[name] for name in KNOWN if name in one and name != "text"}
    answer = style("structured").answer(one["text"])
    return kept | {"rewards": rewards, "answer": answer, "spans": spans(one["text"])}


def spans(text: str) -> list[list[str]]:
    """Splits a completion into pieces of [section, text].

        "<think>a</think>b" -> [["tag", "<think>"], ["think", "a"], ["tag", "</think>"], ["", "b"]]

    The section is "tag" for a tag itself and "" for text outside of all sections. The texts of the pieces, joined, are
    always the completion.
    """
    pieces, open_tags, at = [], [""], 0
    for found in _TAG.finditer(text):
        if found.start() > at:
            pieces.append([_NAMES.get(open_tags[-1], ""), text[at : found.start()]])
        pieces.append(["tag", found[0]])
        closes, tag = found.groups()
        if not closes:
            open_tags.append(tag)
        elif tag in open_tags:
            del open_tags[open_tags.index(tag) :]
        at = found.end()
    if at < len(text):
        pieces.append([_NAMES.get(open_tags[-1], ""), text[at:]])
    return pieces


def add_sounds(questions: Sequence[Question], budget: int) -> tuple[list[Sound], dict[str, int]]:
    """Gives each clip the index of its audio as `sound`, or the reason that it has none as `lacks`.

    Args:
        budget: bytes that there is room for. Questions that are shown most often come first; once a clip does not fit,
            no other is read.

    Returns:
        The audio of the clips, each once; and counts of all `clips`, of `clips_left_out` because there was no room, and
        of `clips_missing` because their file cannot be read.
    """
    sounds: list[Sound] = []
    known: dict[tuple[Any, ...], dict[str, Any]] = {}
    counts = {"clips": 0, "clips_left_out": 0, "clips_missing": 0}
    by_visits = sorted(questions, key=lambda question: -len(question["visits"]))
    for question in tqdm(by_visits, desc="audio", unit="question", disable=None):
        for clip in question["clips"]:
            place = clip.pop("place")
            span = (place["path"], place.get("start"), place.get("end"))
            if span not in known:
                known[span], budget = _sound(sounds, span, budget)
            clip.update(known[span])
            counts["clips"] += 1
            counts["clips_left_out"] += clip.get("lacks") == NO_ROOM
            counts["clips_missing"] += clip.get("lacks", NO_ROOM) != NO_ROOM
    return sounds, counts


def _sound(sounds: list[Sound], span: tuple[Any, ...], budget: int) -> tuple[dict[str, Any], int]:
    """Returns the fields to add to a clip, and the bytes that are left of the budget."""
    if budget <= 0:
        return {"lacks": NO_ROOM}, budget
    try:
        sound = read_sound(*span)
    except InputError as error:
        return {"lacks": str(error)}, budget
    if sound.size > budget:
        return {"lacks": NO_ROOM}, 0
    sounds.append(sound)
    return {"sound": len(sounds) - 1}, budget - sound.size
