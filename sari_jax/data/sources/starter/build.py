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
from sari_jax.data.records import SECTIONS, Clip, Record, write_records
from sari_jax.data.sources.starter.material import SPLITS, Material
from sari_jax.data.sources.starter.questions import KINDS, Draft
from sari_jax.data.sources.starter.speech import SAMPLE_RATE
from sari_jax.hf.checkpoint import new_directory

SPEECH_LICENCE = "GPL-3.0 (espeak-ng voices)"
WEIGHTS = {"easy": 0.25, "medium": 0.35, "hard": 0.40}


def build(
    out: Path, *, seed: int = 0, train: int = 4200, validation: int = 420, test: int = 600
) -> dict[str, Any]:
    """Writes {train,validation,test}.jsonl, audio/*.flac, LICENCES.md and summary.json; the same bits for a seed.

    Raises:
        InputError: `out` is not empty or cannot be written; a package cannot be fetched.
    """
    sizes = {"train": train, "validation": validation, "test": test}
    with new_directory(Path(out)) as aside:
        (aside / "audio").mkdir()
        materials = {id(sources): Material(sources) for sources in SPLITS.values()}
        summary: dict[str, Any] = {"seed": seed, "splits": {}}
        licences: dict[str, str] = {}
        bar = tqdm(total=sum(sizes.values()), desc="starter", file=sys.stderr, disable=None)
        for number, (split, size) in enumerate(sizes.items()):
            material = materials[id(SPLITS[split])]
            rng = np.random.default_rng([seed, number])
            records = []
            for i in range(size):
                difficulty = str(rng.choice(list(WEIGHTS), p=list(WEIGHTS.values())))
                draft = KINDS[i % len(KINDS)](rng, difficulty)
                records.append(_record(f"{split}-{i:05d}", draft, material, rng, aside))
                bar.update()
            write_records(aside / f"{split}.jsonl", records)
            licences |= {record.source: record.licence for record in records}
            summary["splits"][split] = _summary(records) | {"sources": sorted(material.sources.names)}
        bar.close()
        (aside / "LICENCES.md").write_text(
            "# Where the sounds come from\n\n| source | licence |\n|---|---|\n"
            + "".join(f"| {source} | {licence} |\n" for source, licence in sorted(licences.items()))
        )
        (aside / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _record(name: str, draft: Draft, material: Material, rng: np.random.Generator, out: Path) -> Record:
    sounds = draft.sounds(material)
    path = f"audio/{name}.flac"
    soundfile.write(out / path, _mix(draft, [samples for samples, _ in sounds], rng), SAMPLE_RATE, subtype="PCM_16")
    sources = sorted({source for _, source in sounds})
    return Record(
        id=name,
        audio=(Clip(path),),
        question=draft.question,
        choices=draft.choices,
        answer_index=draft.choices.index(draft.answer),
        task=draft.task,
        source="starter/" + "+".join(sources),
        licence="; ".join(sorted({licence(source) for source in sources})),
        kind=draft.kind,
        difficulty=draft.difficulty,
        chain_structured=dict(zip(SECTIONS, draft.chain, strict=True)),
        chain_free=draft.free,
    )


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
        "chance": float(np.mean([1 / len(record.choices) for record in records])) if records else None,
        "tasks": count("task"),
        "kinds": count("kind"),
        "difficulties": count("difficulty"),
    }


