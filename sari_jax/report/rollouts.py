"""Questions, what a model made of them at each step, and their sound: what the page's browser shows."""

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
    """What a page shows of a run.

    Attributes:
        steps, per_step: of its training, and questions of each.
        held_out, times: held-out questions, and how often each.
    """

    steps: int
    per_step: int
    held_out: int
    times: int


# Ours: the first that a page has room for.
SHARES = (
    *(Share(12, 8, 24, 12), Share(8, 6, 16, 8), Share(6, 4, 8, 6), Share(4, 2, 4, 4)),
    *(Share(2, 1, 2, 2), Share(1, 1, 1, 1)),
)
NO_ROOM = "left out for want of room"
KNOWN = ("text", "done", "tokens", "total", "advantage")

_SECTIONS = {tag: section for section, tag in style("structured").section_tags}
_NAMES = {**_SECTIONS, "think": "think", "answer": "answer"}
_TAG = re.compile(f"<(/?)({'|'.join(map(re.escape, _NAMES))})>")


Question = dict[str, Any]


def browse(runs: Sequence[Run], share: Share) -> list[Question]:
    """What the page's browser shows, as plain data and still without sound.

    Returns:
        Questions, each with what is asked, its `clips` and its `visits`: the number of the `run`, the `step` and the
        `split`, with all completions there.
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
    """Some of a run's samples, spread evenly: over steps in training; over questions and times of held-out ones."""
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
    """`count` of them at even distances, the last among them, and the first if they are several."""
    if len(items) <= count:
        return items
    if count == 1:
        return items[-1:]
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _question(row: dict[str, Any]) -> Question:
    names = ("id", "question", "choices", "answer", "task", "kind", "difficulty", "source")
    told = {name: row[name] for name in (*names, "pass_rate") if name in row}
    clips = [{"name": Path(clip["path"]).name, "place": clip} for clip in row["audio"]]
    return told | {"clips": clips, "visits": []}


def _completion(one: dict[str, Any]) -> dict[str, Any]:
    rewards = {name: value for name, value in one.items() if name not in KNOWN}
    kept = {name: one[name] for name in KNOWN if name in one and name != "text"}
    answer = style("structured").answer(one["text"])
    return kept | {"rewards": rewards, "answer": answer, "spans": spans(one["text"])}


def spans(text: str) -> list[list[str]]:
    """A completion in pieces, [section, text] each; of what is in no section, and of tags themselves, "" and "tag".

        "<think>a</think>b" -> [["tag", "<think>"], ["think", "a"], ["tag", "</think>"], ["", "b"]]

    The pieces' texts are the completion, whatever it is.
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
    """Gives each clip the number of its `sound`, or says what it `lacks`.

    Args:
        budget: bytes that there is room for; what is shown most often comes first, and after one that has no room
            no other is read.

    Returns:
        The sounds, each once; and how many `clips` there are, and how many were `clips_left_out` for want of room or
        are `clips_missing`.
    """
    sounds: list[Sound] = []
    known: dict[tuple[Any, ...], dict[str, Any]] = {}
    counts = {"clips": 0, "clips_left_out": 0, "clips_missing": 0}
    by_visits = sorted(questions, key=lambda question: -len(question["visits"]))
    for question in tqdm(by_visits, desc="sounds", unit="question", disable=None):
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
    """What a clip is told to have, and the budget that is left."""
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
