"""Whether a row is about sound, music or speech, where its form does not say so outright."""

import re

from sari_jax.data.records import TASKS

MUSIC = ("musicbench", "musiccaps", "musicqa", "jamendo", "gtzan", "nsynth", "music")
SPEECH = ("meld", "speechcraft", "voxceleb", "iemocap", "covost", "librispeech", "speech")


def task_of(*hints: str | None) -> str:
    """By the first hint, a task, dataset or path, that names a task or a dataset known to be of one; else sound."""
    for hint in filter(None, hints):
        if hint.lower() in TASKS:
            return hint.lower()
        words = re.split(r"[^a-z0-9]+", hint.lower())
        for task, names in (("music", MUSIC), ("speech", SPEECH)):
            if any(word.startswith(names) for word in words):
                return task
    return "sound"
