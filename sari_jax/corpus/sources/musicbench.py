"""MusicBench: MusicCaps with chords, beats, tempo and key as programs estimated them (Melechovsky et al. 2024).

The file is MusicBench_train.json: a row on each line with `location`, `main_caption`, `prompt_bt`, `bpm`, `key`
([tonic, mode]), `beats` ([times, counts in the bar]) and `chords`. A row gives its caption, from which questions can be
written. If it has the fields, it also gives questions by rule, as Ke-Omni-R asks about key, tempo and time signature:

    key             four of the twelve of its mode
    tempo           four on a ladder with steps of 1.32, so that none is near half or double another; the right one
                    is on any rung
    time signature  2/4, 3/4, 4/4, which is what the beats were counted in
    chords          the first four, and the same transposed

Notes have one spelling throughout, so that a spelling does not give the answer away.
"""

import re
from typing import Any

from sari_jax.corpus.sources.choices import generator, mixed
from sari_jax.corpus.sources.rows import BAD_FIELD, json_rows, text
from sari_jax.corpus.sources.source import Context, Source
from sari_jax.data.ledger import Drop

NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MODES = ("major", "minor")
# The ladder of tempo choices, in beats per minute.
STEP = 1.32
SLOWEST, FASTEST = 30, 300
CHORDS = 4
# In a bar.
MOST_BEATS = 12
_CHORD = re.compile(r"([A-G][#b]?)([^/]*)(?:/([A-G][#b]?))?")


def convert(row: dict[str, Any], context: Context) -> list[dict[str, Any]]:
    path = text(row, "location")
    name = "musicbench-" + re.sub(r"\.\w+$", "", path).replace("/", "-")
    same = {"audio": [{"path": path}], "task": "music"}
    drafts = [same | {"id": name, "caption": text(row, "main_caption", "captions")}]
    for kind, ask in KINDS.items():
        asked = ask(row, context.seed, f"{name}-{kind.replace(' ', '-')}")
        if asked:
            drafts.append(same | {"id": f"{name}-{kind.replace(' ', '-')}", "kind": kind} | asked)
    return drafts


def key(row: dict[str, Any], seed: int, name: str) -> dict[str, Any] | None:
    value = row.get("key")
    if not isinstance(value, list) or not value or value[0] is None:
        return None
    if len(value) != 2 or _pitch(value[0]) is None or value[1] not in MODES:
        raise Drop(BAD_FIELD, f"key {value!r} must be a tonic and major or minor")
    keys = [f"{note} {value[1]}" for note in NOTES]
    question = "Which key is this piece in?"
    return {"question": question} | mixed(keys[_pitch(value[0])], keys, seed, name)


def tempo(row: dict[str, Any], seed: int, name: str) -> dict[str, Any] | None:
    value = row.get("bpm")
    if value is None:
        return None
    if type(value) not in (int, float) or not SLOWEST <= value <= FASTEST:
        raise Drop(BAD_FIELD, f"bpm {value!r} must be from {SLOWEST} to {FASTEST}")
    ladders = [[round(value * STEP ** (rung - right)) for rung in range(4)] for right in range(4)]
    # Some ladder is always within the range: a ladder spans a factor of 2.3, the range one of 10.
    within = [steps for steps in ladders if SLOWEST <= steps[0] and steps[3] <= FASTEST]
    choices = [f"{step} beats per minute" for step in generator(seed, name).choice(within)]
    right = f"{round(value)} beats per minute"
    return {"question": "What is the tempo of this piece?"} | mixed(right, choices, seed, name)


def time_signature(row: dict[str, Any], seed: int, name: str) -> dict[str, Any] | None:
    counts = row.get("beats")
    counts = counts[1] if isinstance(counts, list) and len(counts) == 2 else None
    said = re.search(r"\d+", str(row.get("prompt_bt") or ""))
    if isinstance(counts, list) and counts and all(n in range(1, MOST_BEATS + 1) for n in counts):
        beats = int(max(counts))
    else:
        beats = int(said[0]) if said else 0
    if not 2 <= beats <= MOST_BEATS:
        return None
    wrong = [f"{n}/4" for n in (4, 3, 2) if n != beats][:2]
    question = "Which time signature does this piece have?"
    return {"question": question} | mixed(f"{beats}/4", wrong, seed, name)


def chords(row: dict[str, Any], seed: int, name: str) -> dict[str, Any] | None:
    estimated = row.get("chords")
    if not isinstance(estimated, list) or not estimated:
        return None
    parts = [_CHORD.fullmatch(chord) if isinstance(chord, str) else None for chord in estimated]
    if not all(parts):
        return None  # such as N, no chord
    sequences = [", ".join(_moved(part, by) for part in parts[:CHORDS]) for by in range(12)]
    question = "Which chords does this piece begin with?"
    return {"question": question} | mixed(sequences[0], sequences, seed, name)


KINDS = {"key": key, "tempo": tempo, "time signature": time_signature, "chords": chords}


def _pitch(note: Any) -> int | None:
    """Returns a note's pitch class from 0, which is C, to 11; None for what is not a note."""
    if not isinstance(note, str) or not re.fullmatch("[A-G][#b]?", note):
        return None
    return (NOTES.index(note[0]) + {"#": 1, "b": -1}.get(note[1:], 0)) % 12


def _moved(chord: re.Match[str], by: int) -> str:
    root, quality, bass = chord.groups()
    moved = NOTES[(_pitch(root) + by) % 12] + quality
    return moved + (f"/{NOTES[(_pitch(bass) + by) % 12]}" if bass else "")


SOURCE = Source(
    name="musicbench",
    needs="MusicBench_train.json and the folder of its MusicBench.tar.gz as --audio-root",
    licence="MusicBench: CC BY-SA 3.0, as its page says; clips: YouTube videos, copyright of their uploaders",
    read=json_rows,
    convert=convert,
)
