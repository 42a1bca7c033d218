"""Writing of the starter corpus: from drafts of questions to clips on disk and the records that name them."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from sari_jax.assets import ASSETS
from sari_jax.atomic import new_directory
from sari_jax.audio.spans import SAMPLE_RATE
from sari_jax.corpus.sources.starter.material import SPLITS, Material
from sari_jax.corpus.sources.starter.questions import KINDS, Draft
from sari_jax.data.records import SECTIONS, Clip, Record, write_records
from sari_jax.errors import InputError, require

SPEECH_LICENCE = "GPL-3.0 (espeak-ng voices)"
PREFIX, SEPARATOR = "starter/", "; "
WEIGHTS = {"easy": 0.25, "medium": 0.35, "hard": 0.40}


def build(
    out: Path, *, seed: int = 0, train: int = 4200, validation: int = 420, test: int = 600
) -> dict[str, Any]:
    """Writes {train,validation,test}.jsonl, audio/*.flac, LICENCES.md and summary.json; returns the summary.

    The same seed gives the same bits.

    Raises:
        InputError: the seed is negative; `out` is not empty or cannot be written; a package is missing.
    """
    require("sari data build starter", "corpus", "espeakng_loader", "librosa")
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
                # A question does not depend on its neighbours.
                rng = np.random.default_rng([seed, number, i])
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
    """Returns the soundfonts, voices and recordings of a clip; each belongs either to train or to test."""
    return record.source.removeprefix(PREFIX).split(SEPARATOR)


def licence(source: str) -> str:
    return ASSETS[source].licence if source in ASSETS else SPEECH_LICENCE


def _mix(draft: Draft, sounds: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Joins the sounds with silence between and around them and adds noise, which is louder for hard questions."""
    gains = draft.gains or (1.0,) * len(sounds)
    parts = [_silence(rng.uniform(0.05, 0.2))]
    for samples, gain in zip(sounds, gains, strict=True):
        parts += [samples * gain, _silence(draft.gap)]
    mixed = np.concatenate([*parts, _silence(0.1)])
    noise = {"easy": 0.0005, "medium": 0.001, "hard": 0.003}[draft.difficulty]
    mixed = mixed * rng.uniform(0.6, 1.0) + noise * rng.standard_normal(len(mixed))
    return np.clip(mixed, -1, 1).astype(np.float32)


def _silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * SAMPLE_RATE), np.float32)


def _summary(records: list[Record]) -> dict[str, Any]:
    chances = [1 / len(record.choices) for record in records]
    return {
        "questions": len(records),
        "chance": float(np.mean(chances)) if records else None,
        "tasks": _counts(record.task for record in records),
        "kinds": _counts(record.kind for record in records),
        "difficulties": _counts(record.difficulty for record in records),
        "choices": _counts(len(record.choices) for record in records),
    }


def _counts(values: Iterable[Any]) -> dict[str, int]:
    return dict(sorted(Counter(str(value) for value in values).items()))
