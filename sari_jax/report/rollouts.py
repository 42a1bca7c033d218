"""Questions, what a model made of them at each step, and their sound: what the page's browser shows."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sari_jax.data.styles import style
from sari_jax.errors import InputError
from sari_jax.report.experiment import Run
from sari_jax.report.sounds import read_sound

# Ours. Visits, a question at a step, that a page has room for.
STEPS, PER_STEP = 12, 8  # of a run's training: steps, and questions of each
HELD_OUT, TIMES = 24, 12  # held-out questions, and how often each
KNOWN = ("text", "ended", "tokens", "total", "advantage")

_SECTIONS = {tag: section for section, tag in style("structured").section_tags}
_NAMES = {**_SECTIONS, "think": "think", "answer": "answer"}
_TAG = re.compile(f"<(/?)({'|'.join(map(re.escape, _NAMES))})>")


Question = dict[str, Any]


def browse(runs: Sequence[Run]) -> list[Question]:
    """What the page's browser shows, as plain data and still without sound.

    Returns:
        Questions, each with what is asked, its `clips` and its `visits`: the number of the `run`, the `step` and the
        `split`, with all completions there.
    """
    questions: dict[str, Question] = {}
    for place, run in enumerate(runs):
        for row in chosen(run.samples):
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


def chosen(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some of a run's samples, spread evenly: over steps in training; over questions and times of held-out ones."""
    training = [row for row in samples if row["split"] == "train"]
    steps = _spread(sorted({row["step"] for row in training}), STEPS)
    rows = []
    for step in steps:
        rows += _spread([row for row in training if row["step"] == step], PER_STEP)
    others = [row for row in samples if row["split"] == "held_out"]
    times = set(_spread(sorted({row["step"] for row in others}), TIMES))
    names = set(_spread(list(dict.fromkeys(row["id"] for row in others)), HELD_OUT))
    return rows + [row for row in others if row["step"] in times and row["id"] in names]


def _spread(items: list[Any], count: int) -> list[Any]:
    """`count` of them at even distances, the first and the last among them."""
    if len(items) <= count:
        return items
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


def add_sounds(questions: Sequence[Question], budget: int) -> dict[str, int]:
    """Gives each clip its sound, or says what it `lacks`.

    Args:
        budget: bytes that there is room for; what is shown most often comes first.

    Returns:
        How many `clips` there are, and how many were `clips_left_out` for want of room or are `clips_missing`.
    """
    used, counts = 0, {"clips": 0, "clips_left_out": 0, "clips_missing": 0}
    by_visits = sorted(questions, key=lambda question: -len(question["visits"]))
    for question in tqdm(by_visits, desc="sounds", unit="question", disable=None):
        for clip in question["clips"]:
            counts["clips"] += 1
            place = clip.pop("place")
            try:
                sound = read_sound(place["path"], place.get("start"), place.get("end"))
            except InputError as error:
                clip["lacks"] = str(error)
                counts["clips_missing"] += 1
                continue
            if used + sound.size > budget:
                clip["lacks"] = "left out for want of room"
                counts["clips_left_out"] += 1
                continue
            used += sound.size
            clip.update(dataclasses.asdict(sound))
    return counts
