"""Measures how the cost of a GRPO update grows with the group and with the clip, at the benchmark's sizes.

    python -m experiments.growth

The works take turns in one process, so that other load on the machine slows all of them alike. Prints one JSON object:
median seconds, their ratio to the first, and the ratio of the FLOPs by formula.
"""

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from sari_jax.programs import prepare
from sari_jax.scale.work import Work, make

ROUNDS = 5
WORKS = {
    "15 s, G = 8": dict(audio_seconds=15.0),
    "30 s, G = 8": {},
    "30 s, G = 16": dict(num_completions=16),
}


def flops(work: Work, directory: Path) -> float:
    from sari_jax.hf.config import read_config
    from sari_jax.models.work import step_flops

    samples = round(16_000 * work.audio_seconds)
    return step_flops(
        read_config(directory / "model"),
        np.array([[samples]]),
        np.array([samples // 640 + work.text_tokens]),
        np.full((1, work.num_completions), work.new_tokens),
        passes=1,
        learns={"tower", "projector", "decoder"},
    )


def main() -> None:
    prepare()
    import jax

    from sari_jax.scale import jax_side

    update = {}
    formula = {}
    seconds = {name: [] for name in WORKS}
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, changes) in enumerate(WORKS.items()):
            work = dataclasses.replace(Work(), sft_rows=8, **changes)
            directory = Path(folder, str(i))
            make(work, directory)
            update[name] = jax_side.phases(directory, "trained")["update"]
            formula[name] = flops(work, directory)
            jax.block_until_ready(update[name]())
    for _ in range(ROUNDS):
        for name, run in update.items():
            begun = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - begun)
    first = next(iter(WORKS))
    result = {
        name: {
            "seconds": round(median(times), 3),
            "ratio": round(median(t / s for t, s in zip(times, seconds[first], strict=True)), 2),
            "work_ratio": round(formula[name] / formula[first], 2),
        }
        for name, times in seconds.items()
    }
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
