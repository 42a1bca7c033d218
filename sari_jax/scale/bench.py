"""`sari bench`: times the same work in this package and in PyTorch.

Each side is a process of its own with the same weights, tokens, dtype and number of threads. The first pass of every
phase compiles; it is reported as `first_s` and not counted. Then the sides take turns phase by phase, so that other
load on the machine slows both alike.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from sari_jax.errors import InputError, require
from sari_jax.scale.work import Work, make

GRPO = ("rollout", "reference", "update", "grpo_step")
SFT = ("sft_step",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison. It has processes of its own, so that their peak memory belongs to this row alone.

    Attributes:
        tower: trained or frozen.
        form: the way PyTorch batches the work. `repeated`: prompt and audio for each completion; `once`: the audio
            encoded once per group; `padded`: all examples in one batch; `parts`: in the same micro-batches as here.
        changes: fields of `Work` that differ from the config.
    """

    tower: str
    form: str
    phases: tuple[str, ...]
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)


ROWS = {
    "repeated": Row(tower="trained", form="repeated", phases=GRPO),
    "sft": Row(tower="trained", form="padded", phases=SFT),
    "encode_once": Row(tower="trained", form="once", phases=GRPO),
    "sft_in_parts": Row(tower="trained", form="parts", phases=SFT),
    "frozen_tower": Row(tower="frozen", form="repeated", phases=("grpo_step",)),
    "text_heavy": Row(
        tower="trained",
        form="repeated",
        phases=GRPO,
        changes=dict(audio_seconds=2.0, new_tokens=256),
    ),
}


class Side:
    """The worker process of one side, which runs phases on demand."""

    def __init__(self, module: str, threads: int, *words: str):
        limits = {"OMP_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"sari_jax.scale.{module}", *words],
            env=os.environ | limits,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.peak = 0.0
        self._read()

    def seconds(self, phase: str) -> float:
        assert self._process.stdin
        print(phase, file=self._process.stdin, flush=True)
        timed = self._read()
        self.peak = timed["peak_rss_gib"]
        return timed["seconds"]

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise InputError(
                f"{' '.join(map(str, self._process.args[2:4]))} ended early; its error is above"
            )
        return json.loads(line)


def bench(work: Work, rows: tuple[str, ...], report: Callable[[str], None]) -> dict[str, Any]:
    """Times the phases of the given rows.

    Returns:
        `rows` with all figures. `phases` has each phase once, from the first row that times it.

    Raises:
        InputError: a row is unknown, PyTorch is not installed, the machine has fewer processors than `work.threads`, or
            a side ended early.
    """
    unknown = [row for row in rows if row not in ROWS]
    if unknown or not rows:
        raise InputError(f"row {(unknown or [''])[0]!r} is unknown; choose {', '.join(ROWS)}")
    processors = len(os.sched_getaffinity(0))
    if work.threads > processors:
        raise InputError(
            f"config: threads = {work.threads} exceeds this machine's {processors} processors; lower threads"
        )
    require("sari bench", "bench", "torch")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in rows:
            directory = Path(folder) / name
            make(dataclasses.replace(work, **ROWS[name].changes), directory)
            results[name] = _time(name, work, directory, report)
    phases: dict[str, Any] = {}
    for result in results.values():
        phases = result["phases"] | phases
    first = results[rows[0]]
    return {
        "phases": phases,
        "peak_rss_gib": first["peak_rss_gib"],
        "rows": results,
        "work": dataclasses.asdict(work),
    }


def _time(name: str, work: Work, directory: Path, report: Callable[[str], None]) -> dict[str, Any]:
    row = ROWS[name]
    sides = {
        "jax": Side("jax_side", work.threads, str(directory), row.tower),
        "torch": Side("torch_side", work.threads, str(directory), row.tower, row.form),
    }
    first = {key: sum(side.seconds(p) for p in row.phases) for key, side in sides.items()}
    phases = {}
    for phase in row.phases:
        phases[phase] = _time_phase(phase, sides, work.rounds)
        report(_phase_line(name, phase, phases[phase]))
    for side in sides.values():
        side.close()
    peaks = {key: side.peak for key, side in sides.items()}
    report(f"{name:>12} peak       jax {peaks['jax']:8.2f} GiB torch {peaks['torch']:8.2f} GiB")
    return {"phases": phases, "peak_rss_gib": peaks, "first_s": first}


def _time_phase(phase: str, sides: dict[str, Side], rounds: int) -> dict[str, float]:
    """Times one phase on both sides in turns; the ratio is PyTorch's seconds over ours."""
    pairs = [{key: side.seconds(phase) for key, side in sides.items()} for _ in range(rounds)]
    ratios = sorted(pair["torch"] / pair["jax"] for pair in pairs)
    return {
        "jax_s": median(pair["jax"] for pair in pairs),
        "torch_s": median(pair["torch"] for pair in pairs),
        "ratio": median(ratios),
        "ratio_min": ratios[0],
        "ratio_max": ratios[-1],
    }


def _phase_line(row: str, phase: str, times: dict[str, float]) -> str:
    return (
        f"{row:>12} {phase:<10} jax {times['jax_s']:8.3f} s   torch {times['torch_s']:8.3f} s   "
        f"ratio {times['ratio']:6.2f} ({times['ratio_min']:.2f} to {times['ratio_max']:.2f})"
    )
