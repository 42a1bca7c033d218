"""Records of one file or many to a clean corpus, every input accounted for."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sari_jax.atomic import vacant
from sari_jax.corpus.clean.balance import LENGTH, balance_positions, excess_lengths, length_report
from sari_jax.corpus.clean.contamination import (
    SOUND,
    TEXT,
    find_questions,
    read_benchmark,
    template_rows,
)
from sari_jax.corpus.clean.duplicates import find_duplicates
from sari_jax.corpus.clean.fingerprint import Fingerprint, near_pairs
from sari_jax.corpus.clean.probe import probe
from sari_jax.corpus.clean.sounds import listen
from sari_jax.corpus.folder import write_corpus
from sari_jax.data.ledger import Drop, Ledger
from sari_jax.data.records import Clip, Record, read_records
from sari_jax.errors import InputError

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".opus", ".aif", ".aiff", ".au", ".w64", ".caf"}
BENCHMARK_SECONDS = 600.0


@dataclasses.dataclass(frozen=True)
class Cleaning:
    """What is to be done.

    Attributes:
        against: benchmarks' files; against_audio, folders of their sounds.
        max_bad_fraction: of a file's lines.
        seconds: of the longest clip.
        balance_lengths: leave out records until the answer's length says nothing.
        workers: processes that decode, 0 for as many as there are cores for this one.
    """

    against: tuple[str, ...] = ()
    against_audio: tuple[str, ...] = ()
    max_bad_fraction: float = 1.0
    seconds: float = 30.0
    balance_lengths: bool = False
    workers: int = 0
    seed: int = 0


def clean(files: Sequence[str | Path], out: str | Path, plan: Cleaning) -> dict[str, Any]:
    """Reads, listens, leaves out, balances, probes and writes a corpus folder; returns its report.

    Raises:
        InputError: a file cannot be used; or no record is left, the folder saying why.
    """
    out = vacant(out)  # before the work, not after
    benchmark, told = [], {}
    for name in plan.against:
        rows, unused = read_benchmark(name)
        benchmark += rows
        told[str(name)] = {"rows": len(rows), "unusable": unused}
    references = [path for folder in plan.against_audio for path in _sounds_in(folder)]
    ledger, clock, took = Ledger(), time.monotonic(), {}
    records, renamed = _read(files, plan, ledger)
    took["read"] = time.monotonic() - clock

    records, numbers, sounds = _with_sound(records, plan, ledger)
    took["listen"] = time.monotonic() - clock - sum(took.values())
    asked = find_questions(records, benchmark)
    templates = {row: asked.pop(row) for row in template_rows(records, numbers, asked)}
    found = {row: (TEXT, match.detail) for row, match in asked.items()}
    if references:
        heard = listen(
            [Clip(str(path)) for path in references],
            longest=BENCHMARK_SECONDS,
            workers=plan.workers,
            what="benchmark",
        )
        known = [(p, h) for p, h in zip(references, heard, strict=True) if _is_sound(h)]
        told["audio"] = {"files": len(references), "unusable": len(references) - len(known)}
        found |= _with_known_sound(numbers, sounds, known, found)
    stay = [row for row in templates if row not in found]
    kept_templates = {
        "records": len(stay),
        "first": [f"{records[row].id} {templates[row].detail}" for row in sorted(stay)[:10]],
    }
    records, numbers = _without(records, numbers, found, ledger)
    found = find_duplicates(records, numbers, near_pairs(sounds))
    records, numbers = _without(records, numbers, found, ledger)
    took["compare"] = time.monotonic() - clock - sum(took.values())

    lengths = {"before": length_report(records)}
    if plan.balance_lengths:
        excess = excess_lengths(records, seed=plan.seed)
        found = {row: (LENGTH, detail) for row, detail in excess.items()}
        records, numbers = _without(records, numbers, found, ledger)
        lengths["after"] = length_report(records)
    records, positions = balance_positions(records, seed=plan.seed)
    leak = probe(records, seed=plan.seed)
    took["balance and probe"] = time.monotonic() - clock - sum(took.values())
    ledger.keep(len(records))
    report = write_corpus(
        out,
        ledger,
        records,
        renamed=renamed,
        sounds={
            "distinct": len(sounds),
            "hours": round(sum(sound.samples for sound in sounds) / 16_000 / 3600, 4),
        },
        against=told,
        templates=kept_templates,
        positions=positions,
        lengths=lengths,
        probe=leak,
        seconds={name: round(value, 2) for name, value in took.items()},
    )
    if not records:
        raise InputError(
            f"no record is left of {ledger.read}; {out / 'dropped.jsonl'} says why of each"
        )
    return report


def _read(
    files: Sequence[str | Path], plan: Cleaning, ledger: Ledger
) -> tuple[list[Record], dict[str, Any]]:
    """The records of all files; an id that another file has too gets its file's name before it."""
    records, taken, renamed = [], set(), []
    for path in tqdm(files, desc="files", disable=None):
        for record in read_records(path, max_bad_fraction=plan.max_bad_fraction, ledger=ledger):
            name, number = record.id, 1
            while name in taken:
                name = f"{Path(path).stem}/{record.id}" + (f"/{number}" if number > 1 else "")
                number += 1
            if name != record.id:
                renamed.append({"file": str(path), "from": record.id, "to": name})
            taken.add(name)
            records.append(dataclasses.replace(record, id=name))
    return records, {"count": len(renamed), "first": renamed[:10]}


def _with_sound(
    records: Sequence[Record], plan: Cleaning, ledger: Ledger
) -> tuple[list[Record], list[tuple[int, ...]], list[Fingerprint]]:
    """The records whose clips all decode; of each its clips by number; and by number the different sounds."""
    clips = list(dict.fromkeys(clip for record in records for clip in record.audio))
    heard = listen(clips, longest=plan.seconds, workers=plan.workers)
    sounds: dict[str, Fingerprint] = {}
    for sound in filter(_is_sound, heard):
        sounds.setdefault(sound.digest, sound)
    number = {digest: place for place, digest in enumerate(sounds)}
    by_clip = dict(zip(clips, heard, strict=True))
    kept, numbers = [], []
    for record in records:
        parts = [by_clip[clip] for clip in record.audio]
        bad = next((part for part in parts if isinstance(part, Drop)), None)
        if bad is not None:
            ledger.drop(record.id, bad.reason, str(bad))
        else:
            kept.append(record)
            numbers.append(tuple(number[part.digest] for part in parts))
    return kept, numbers, list(sounds.values())


def _with_known_sound(
    numbers: Sequence[tuple[int, ...]],
    sounds: Sequence[Fingerprint],
    known: Sequence[tuple[Path, Fingerprint]],
    already: dict[int, Any],
) -> dict[int, tuple[str, str]]:
    """Rows that have a benchmark's sound: which, and how near it is."""
    told: dict[int, str] = {}
    for i, j, errors in near_pairs(sounds, [heard for _, heard in known]):
        told.setdefault(i, f"{known[j][0]}: {errors:.0%} of the sound's bits differ")
    names = {heard.digest: path for path, heard in known}
    for i, sound in enumerate(sounds):
        if sound.digest in names:
            told[i] = f"{names[sound.digest]}: the same samples"
    return {
        row: (SOUND, next(told[clip] for clip in clips if clip in told))
        for row, clips in enumerate(numbers)
        if row not in already and any(clip in told for clip in clips)
    }


def _without(
    records: Sequence[Record],
    numbers: Sequence[tuple[int, ...]],
    found: dict[int, tuple[str, str]],
    ledger: Ledger,
) -> tuple[list[Record], list[tuple[int, ...]]]:
    """Those that stay; the others go to the ledger with reason and detail."""
    for row, (reason, detail) in sorted(found.items()):
        ledger.drop(records[row].id, reason, detail)
    stay = [row for row in range(len(records)) if row not in found]
    return [records[row] for row in stay], [numbers[row] for row in stay]


def _is_sound(heard: Fingerprint | Drop) -> bool:
    return isinstance(heard, Fingerprint)


def _sounds_in(folder: str | Path) -> list[Path]:
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder of sounds")
    found = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"{folder}: holds no sound file ({', '.join(sorted(SUFFIXES))})")
    return found
