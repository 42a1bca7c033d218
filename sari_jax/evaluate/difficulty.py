"""How hard each question is for a model: its pass rate over several sampled attempts (SARI's difficulty)."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from sari_jax.data.processor import Shapes
from sari_jax.data.records import Record
from sari_jax.data.styles import Style
from sari_jax.generate.engine import Engine
from sari_jax.rl.rewards import REWARDS


def pass_rates(
    engine: Engine,
    records: Sequence[Record],
    style: Style,
    *,
    attempts: int = 16,
    temperature: float = 1.0,
    max_tokens: int = 512,
    rows: int = 8,
    shapes: Shapes = Shapes(),
    seed: int = 0,
) -> Iterator[Record]:
    """Each record with `pass_rate`, the fraction of its attempts whose answer is right."""
    sampler = engine.sampler(attempts, max_tokens, temperature)
    answered = engine.answer_records(records, style, sampler, shapes, rows=rows, seed=seed)
    bar = tqdm(
        zip(records, answered, strict=True),
        total=len(records),
        desc="score",
        file=sys.stderr,
        disable=None,
    )
    for record, result in bar:
        right = sum(REWARDS["accuracy"](text, record, style) for text in result.texts)
        yield dataclasses.replace(record, pass_rate=right / attempts)
