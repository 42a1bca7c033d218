"""A run's workdir and an evaluation's folder whose every text tries to be markup."""

import json
from pathlib import Path

import numpy as np
import soundfile

from sari_jax.data.records import Clip, Record
from sari_jax.train.metrics import Metrics
from sari_jax.train.samples import Sample, described

HOSTILE = (
    "</script><script>window.taken = true</script><img src=x onerror='window.taken = true'>&amp;"
)
STEPS = 3


def hostile_run(folder: Path) -> Path:
    """Three steps of two questions, one of whose clips is not there."""
    workdir = folder / "<img src=x onerror=window.taken=1>"
    workdir.mkdir()
    clip = folder / "<b onclick='x'>&\".wav"
    gone = folder / "gone.wav"
    for path in (clip, gone):
        soundfile.write(path, 0.5 * np.sin(np.arange(16_000) * 0.4), 16_000)
    settings = {"stage": "grpo", "steps": STEPS, "batch_size": 2, "note": HOSTILE}
    (workdir / "config.json").write_text(json.dumps(settings | {"grpo": {"num_completions": 2}}))
    known = dict(answer_index=0, source=HOSTILE, licence="CC0-1.0", task="sound", pass_rate=0.5)
    records = [
        Record(f"{i} {HOSTILE}", (Clip(str(path)),), f"Which? {HOSTILE}", (HOSTILE, "dog"), **known)
        for i, path in enumerate((clip, gone))
    ]
    metrics = Metrics(workdir, start=0)
    for step in range(1, STEPS + 1):
        metrics.write(step, {"reward": step / STEPS, "accuracy": 0.5, "seconds": 1.0})
        metrics.ask(step, records, [0.5, step / STEPS])
        texts = [f"<think><caption>{HOSTILE}</caption></think><answer>{HOSTILE}</answer>", HOSTILE]
        scores = [{"format": 1.0, "accuracy": float(i == 0), "total": 1.0 - i} for i in (0, 1)]
        completions = described(
            texts, np.array([5, 9]), np.array([True, False]), scores, np.array([0.7, -0.7])
        )
        samples = [Sample(i, completions) for i in (0, 1)]
        metrics.sample(step, samples[:1], records)
        metrics.sample(step, [Sample(1, completions[:1])], records, "held_out")
        metrics.examine(step, {"accuracy": 1.0, "rows": 1})
    metrics.close()
    gone.unlink()
    return workdir


def hostile_result(folder: Path) -> Path:
    out = folder / "evaluated"
    out.mkdir()
    row = {"accuracy": 0.5, "rows": 2, "interval": [0.1, 0.9]}
    scores = {
        "benchmark": HOSTILE,
        "version": "test",
        "rows": 2,
        "accuracy": {"answered": 0.5, "all": 0.5},
        "interval": [0.1, 0.9],
        "by": {"task": {HOSTILE: row}},
        "published": {HOSTILE: {"sound": 0.5}},
    }
    (out / "scores.json").write_text(json.dumps(scores))
    return out
