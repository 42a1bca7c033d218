"""Drafts -> clips on disk and the records that name them."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from sari_jax.assets import ASSETS
from sari_jax.atomic import new_directory
from sari_jax.corpus.sources.starter.material import SPLITS, Material
from sari_jax.corpus.sources.starter.questions import KINDS, Draft
from sari_jax.corpus.sources.starter.speech import SAMPLE_RATE
from sari_jax.data.records import SECTIONS, Clip, Record, write_records
from sari_jax.errors import InputError

SPEECH_LICENCE = "GPL-3.0 (espeak-ng voices)"
PREFIX, SEPARATOR = "starter/", "; "
WEIGHTS = {"easy": 0.25, "medium": 0.35, "hard": 0.40}


def build(
    out: Path, *, seed: int = 0, train: int = 4200, validation: int = 420, test: int = 600
) -> dict[str, Any]:
    """Writes {train,validation,test}.jsonl, audio/*.flac, LICENCES.md and summary.json; the same bits for a seed.

    Raises:
        InputError: a negative seed; `out` is not empty or cannot be written; a package cannot be fetched.
    """
    if seed < 0:
        raise InputError(f"seed {seed}: must be 0 or more")
    sizes = {"train": train, "validation": validation, "test": test}
    materials = {sources: Material(sources) for sources in SPLITS.values()}
    summary: dict[str, Any] = {"seed": seed, "splits": {}}
    terms: dict[str, str] = {}
    with (
        new_directory(out) as aside,
        tqdm(total=sum(sizes.values()), desc="starter", file=sys.stderr, disable=None) as bar,
    ):
        (aside / "audio").mkdir()
        for number, (split, size) in enumerate(sizes.items()):
            material = materials[SPLITS[split]]
            records = []
            for i in range(size):
                rng = np.random.default_rng(
                    [seed, number, i]
                )  # a question does not depend on its neighbours
                difficulty = str(rng.choice(list(WEIGHTS), p=list(WEIGHTS.values())))
                draft = KINDS[i % len(KINDS)](rng, difficulty)
                records.append(_record(f"{split}-{i:05d}", draft, material, rng, aside))
                bar.update()
            write_records(aside / f"{split}.jsonl", records)
            used = sorted({source for record in records for source in sources_of(record)})
            terms |= {source: licence(source) for source in used}
            summary["splits"][split] = _summary(records) | {"sources": used}
        (aside / "LICENCES.md").write_text(
            "# Where the sounds come from\n\n| source | licence |\n|---|---|\n"
            + "".join(f"| {source} | {terms[source]} |\n" for source in sorted(terms))
        )
        (aside / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _record(
    name: str, draft: Draft, material: Material, rng: np.random.Generator, out: Path
) -> Record:
    sounds = draft.sounds(material)
    path = f"audio/{name}.flac"
    soundfile.write(
        out / path,
        _mix(draft, [samples for samples, _ in sounds], rng),
        SAMPLE_RATE,
        subtype="PCM_16",
    )
    sources = sorted({source for _, source in sounds})
    return Record(
        id=name,
        audio=(Clip(path),),
        question=draft.question,
        choices=draft.choices,
        answer_index=draft.choices.index(draft.answer),
        task=draft.task,
        source=PREFIX + SEPARATOR.join(sources),
        licence="; ".join(sorted({licence(source) for source in sources})),
        kind=draft.kind,
        difficulty=draft.difficulty,
        chain_structured=dict(zip(SECTIONS, draft.chain, strict=True)),
        chain_free=draft.free,
    )


def sources_of(record: Record) -> list[str]:
    """The soundfonts, voices and recordings that a clip is made of; each belongs to train or to test."""
    return record.source.removeprefix(PREFIX).split(SEPARATOR)


def licence(source: str) -> str:
    return ASSETS[source].licence if source in ASSETS else SPEECH_LICENCE


def _mix(draft: Draft, sounds: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The sounds in order with silence between and around them, over noise that is louder where it is hard."""
    gains = draft.gains or (1.0,) * len(sounds)
    silence = lambda seconds: np.zeros(int(seconds * SAMPLE_RATE), np.float32)  # noqa: E731
    parts = [silence(rng.uniform(0.05, 0.2))]
    for samples, gain in zip(sounds, gains, strict=True):
        parts += [samples * gain, silence(draft.gap)]
    mixed = np.concatenate([*parts, silence(0.1)])
    noise = {"easy": 0.0005, "medium": 0.001, "hard": 0.003}[draft.difficulty]
    mixed = mixed * rng.uniform(0.6, 1.0) + noise * rng.standard_normal(len(mixed))
    return np.clip(mixed, -1, 1).astype(np.float32)


def _summary(records: list[Record]) -> dict[str, Any]:
    count = lambda name: dict(sorted(Counter(str(getattr(r, name)) for r in records).items()))  # noqa: E731
    return {
        "questions": len(records),
        "chance": float(np.mean([1 / len(record.choices) for record in records]))
        if records
        else None,
        "tasks": count("task"),
        "kinds": count("kind"),
        "difficulties": count("difficulty"),
        "choices": dict(sorted(Counter(str(len(record.choices)) for record in records).items())),
    }
