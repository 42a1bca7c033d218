"""Cleaning: from files of records to one clean corpus, with every input accounted for."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sari_jax.atomic import vacant
from sari_jax.audio.spans import SAMPLE_RATE
from sari_jax.corpus.clean.balance import LENGTH, balance_positions, excess_lengths, length_report
from sari_jax.corpus.clean.contamination import (
    SOUND,
    TEXT,
    Row,
    find_questions,
    read_benchmark,
    template_rows,
)
from sari_jax.corpus.clean.decoding import fingerprint_clips
from sari_jax.corpus.clean.duplicates import find_duplicates
from sari_jax.corpus.clean.fingerprint import Fingerprint, near_pairs
from sari_jax.corpus.clean.probe import probe
from sari_jax.corpus.folder import write_corpus
from sari_jax.data.ledger import Drop, Ledger
from sari_jax.data.records import Clip, Record, read_records
from sari_jax.errors import InputError

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".opus", ".aif", ".aiff", ".au", ".w64", ".caf"}
BENCHMARK_SECONDS = 600.0
Found = dict[int, tuple[str, str]]  # row -> reason and detail


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cleaning:
    """Options of `sari data clean`.

    Attributes:
        against: files of benchmarks.
        against_audio: folders of benchmarks' audio.
        max_bad_fraction: the largest allowed fraction of bad lines in a file.
        seconds: the longest clip that is kept.
        balance_lengths: whether to leave out records until the answer's length gives nothing away.
        workers: processes that decode; 0 is one for each core of this process.
    """

    against: tuple[str, ...] = ()
    against_audio: tuple[str, ...] = ()
    max_bad_fraction: float = 1.0
    seconds: float = 30.0
    balance_lengths: bool = False
    workers: int = 0
    seed: int = 0


@dataclasses.dataclass
class _Kept:
    """The records that are still in the corpus, and for each the indices of its clips' audio."""

    records: list[Record]
    audio: list[tuple[int, ...]]
    ledger: Ledger

    def drop(self, found: Found) -> None:
        """Takes rows out and enters them in the ledger."""
        for row, (reason, detail) in sorted(found.items()):
            self.ledger.drop(self.records[row].id, reason, detail)
        stay = [row for row in range(len(self.records)) if row not in found]
        self.records = [self.records[row] for row in stay]
        self.audio = [self.audio[row] for row in stay]


class _Stages:
    """Seconds of each stage, in order."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._begun = time.monotonic()

    def end(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = round(now - self._begun, 2)
        self._begun = now


def clean(files: Sequence[str | Path], out: str | Path, plan: Cleaning) -> dict[str, Any]:
    """Reads, decodes, compares, balances and probes records; writes a corpus folder and returns its report.

    Raises:
        InputError: a file cannot be used; or no record is left, and the folder says why.
    """
    out = vacant(out)  # before the work, not after
    benchmark, against = _read_benchmarks(plan.against)
    references = [path for folder in plan.against_audio for path in _audio_files(folder)]
    ledger = Ledger()
    stages = _Stages()
    records, renamed = _read(files, plan, ledger)
    stages.end("read")

    kept, sounds = _decode(records, plan, ledger)
    stages.end("listen")

    of_benchmark, counts = _decode_benchmark(references, plan)
    against |= counts
    templates = _drop_contaminated(kept, sounds, benchmark, of_benchmark)
    kept.drop(find_duplicates(kept.records, kept.audio, near_pairs(sounds)))
    stages.end("compare")

    lengths = {"before": length_report(kept.records)}
    if plan.balance_lengths:
        excess = excess_lengths(kept.records, seed=plan.seed)
        kept.drop({row: (LENGTH, detail) for row, detail in excess.items()})
        lengths["after"] = length_report(kept.records)
    records, positions = balance_positions(kept.records, seed=plan.seed)
    leak = probe(records, seed=plan.seed)
    stages.end("balance and probe")

    ledger.keep(len(records))
    samples = sum(sound.samples for sound in sounds)
    report = write_corpus(
        out,
        ledger,
        records,
        renamed=renamed,
        sounds={"distinct": len(sounds), "hours": round(samples / SAMPLE_RATE / 3600, 4)},
        against=against,
        templates=templates,
        positions=positions,
        lengths=lengths,
        probe=leak,
        seconds=stages.seconds,
    )
    if not records:
        raise InputError(
            f"no record is left of {ledger.read}; {out / 'dropped.jsonl'} has the reason for each"
        )
    return report


def _read_benchmarks(files: Sequence[str]) -> tuple[list[Row], dict[str, Any]]:
    """Reads all files; returns their rows, and for each file how many rows it has and how many cannot be used."""
    benchmark: list[Row] = []
    counts = {}
    for name in files:
        rows, unusable = read_benchmark(name)
        benchmark += rows
        counts[str(name)] = {"rows": len(rows), "unusable": unusable}
    return benchmark, counts


def _read(
    files: Sequence[str | Path], plan: Cleaning, ledger: Ledger
) -> tuple[list[Record], dict[str, Any]]:
    """Reads the records of all files.

    If an earlier file has an id already, the file's name is put before it. The second result lists these.
    """
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


def _decode(
    records: Sequence[Record], plan: Cleaning, ledger: Ledger
) -> tuple[_Kept, list[Fingerprint]]:
    """Drops the records with a clip that cannot be used; returns the others and the distinct sounds by index."""
    clips = list(dict.fromkeys(clip for record in records for clip in record.audio))
    results = fingerprint_clips(clips, longest=plan.seconds, workers=plan.workers)
    sounds: dict[str, Fingerprint] = {}
    for result in results:
        if isinstance(result, Fingerprint):
            sounds.setdefault(result.digest, result)
    index = {digest: i for i, digest in enumerate(sounds)}
    by_clip = dict(zip(clips, results, strict=True))
    kept = _Kept([], [], ledger)
    for record in records:
        parts = [by_clip[clip] for clip in record.audio]
        bad = next((part for part in parts if isinstance(part, Drop)), None)
        if bad is not None:
            ledger.drop(record.id, bad.reason, str(bad))
        else:
            kept.records.append(record)
            kept.audio.append(tuple(index[part.digest] for part in parts))
    return kept, list(sounds.values())


def _decode_benchmark(
    paths: Sequence[Path], plan: Cleaning
) -> tuple[list[tuple[Path, Fingerprint]], dict[str, Any]]:
    """Returns the usable files with their fingerprints, and the counts for the report; nothing without files."""
    if not paths:
        return [], {}
    results = fingerprint_clips(
        [Clip(str(path)) for path in paths],
        longest=BENCHMARK_SECONDS,
        workers=plan.workers,
        description="benchmark",
    )
    pairs = zip(paths, results, strict=True)
    usable = [(path, result) for path, result in pairs if isinstance(result, Fingerprint)]
    return usable, {"audio": {"files": len(paths), "unusable": len(paths) - len(usable)}}


def _drop_contaminated(
    kept: _Kept,
    sounds: Sequence[Fingerprint],
    benchmark: Sequence[Row],
    of_benchmark: Sequence[tuple[Path, Fingerprint]],
) -> dict[str, Any]:
    """Drops the records with a benchmark's question or audio; returns a report of the templates that stay."""
    asked = find_questions(kept.records, benchmark)
    templates = {row: asked.pop(row) for row in template_rows(kept.records, kept.audio, asked)}
    found = {row: (TEXT, match.detail) for row, match in asked.items()}
    if of_benchmark:
        found |= _with_known_audio(kept.audio, sounds, of_benchmark, found)
    stay = sorted(row for row in templates if row not in found)
    first = [f"{kept.records[row].id} {templates[row].detail}" for row in stay[:10]]
    kept.drop(found)
    return {"records": len(stay), "first": first}


def _with_known_audio(
    audio: Sequence[tuple[int, ...]],
    sounds: Sequence[Fingerprint],
    known: Sequence[tuple[Path, Fingerprint]],
    already: Mapping[int, Any],
) -> Found:
    """Returns the rows with a benchmark's audio, each with the file and how near the two are."""
    details: dict[int, str] = {}
    for i, j, errors in near_pairs(sounds, [mark for _, mark in known]):
        details.setdefault(i, f"{known[j][0]}: {errors:.0%} of the sound's bits differ")
    paths = {mark.digest: path for path, mark in known}
    for i, sound in enumerate(sounds):
        if sound.digest in paths:
            details[i] = f"{paths[sound.digest]}: the same samples"
    return {
        row: (SOUND, next(details[clip] for clip in clips if clip in details))
        for row, clips in enumerate(audio)
        if row not in already and any(clip in details for clip in clips)
    }


def _audio_files(folder: str | Path) -> list[Path]:
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder of audio; name it with --against-audio")
    found = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"{folder}: holds no audio file ({', '.join(sorted(SUFFIXES))})")
    return found
