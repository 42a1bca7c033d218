"""The task of a row, sound, music or speech, where its form does not state it."""

import re

from sari_jax.data.records import TASKS

MUSIC = ("musicbench", "musiccaps", "musicqa", "jamendo", "gtzan", "nsynth", "music")
SPEECH = ("meld", "speechcraft", "voxceleb", "iemocap", "covost", "librispeech", "speech")


def task_of(*hints: str | None) -> str:
    """Returns the task that the first useful hint names, or else sound.

    A hint is a task, a dataset or a path. It is useful if it names a task or a dataset whose task is known.
    """
    for hint in filter(None, hints):
        if hint.lower() in TASKS:
            return hint.lower()
        words = re.split(r"[^a-z0-9]+", hint.lower())
        for task, names in (("music", MUSIC), ("speech", SPEECH)):
            if any(word.startswith(names) for word in words):
                return task
    return "sound"
