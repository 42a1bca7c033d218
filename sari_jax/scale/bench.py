"""`sari bench`: the same work in this package and in PyTorch, in turns, in one run.

Each side is a process of its own with the same weights, tokens, dtype and number of threads. A first pass of every
phase, which compiles, is not counted and is told as `first_s`. Then the sides take turns phase by phase, so that what
else the machine does falls on both.
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

GRPO, SFT = ("rollout", "reference", "update", "grpo_step"), ("sft_step",)


@dataclasses.dataclass(frozen=True)
class Row:
    """A comparison in processes of its own, so that its peak of memory is its own too.

    Attributes:
        tower: trained or frozen.
        form: PyTorch's. `repeated`: prompt and sound for each completion; `once`: the sound encoded once a group;
            `padded`: all examples in one batch; `parts`: in the same parts as here.
        changes: to the work.
    """

    tower: str
    form: str
    phases: tuple[str, ...]
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)


ROWS = {
    "repeated": Row("trained", "repeated", GRPO),
    "sft": Row("trained", "padded", SFT),
    "encode_once": Row("trained", "once", GRPO),
    "sft_in_parts": Row("trained", "parts", SFT),
    "frozen_tower": Row("frozen", "repeated", ("grpo_step",)),
    "text_heavy": Row("trained", "repeated", GRPO, dict(audio_seconds=2.0, new_tokens=256)),
}


class Side:
    """A worker process that runs phases on demand."""

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
        told = self._read()
        self.peak = told["peak_rss_gib"]
        return told["seconds"]

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
    """Times the phases of the rows; a phase stands at the top of the result as the first row has it.

    Raises:
        InputError: an unknown row; PyTorch is not installed; fewer processors than threads; a side that broke off.
    """
    unknown = [row for row in rows if row not in ROWS]
    if unknown or not rows:
        raise InputError(f"row {(unknown or [''])[0]!r} is unknown; choose {', '.join(ROWS)}")
    if work.threads > len(os.sched_getaffinity(0)):
        raise InputError(
            f"config: threads = {work.threads} exceeds the {len(os.sched_getaffinity(0))} processors there are"
        )
    require("sari bench", "bench", "torch")
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in rows:
            directory = Path(folder) / name
            make(dataclasses.replace(work, **ROWS[name].changes), directory)
            told[name] = _time(name, work, directory, report)
    phases: dict[str, Any] = {}
    for found in told.values():
        phases = found["phases"] | phases
    first = told[rows[0]]
    return {
        "phases": phases,
        "peak_rss_gib": first["peak_rss_gib"],
        "rows": told,
        "work": dataclasses.asdict(work),
    }


def _time(name: str, work: Work, directory: Path, report: Callable[[str], None]) -> dict[str, Any]:
    row = ROWS[name]
    sides = {
        "jax": Side("jax_side", work.threads, str(directory), row.tower),
        "torch": Side("torch_side", work.threads, str(directory), row.tower, row.form),
    }
    first = {side: sum(of.seconds(p) for p in row.phases) for side, of in sides.items()}
    found = {}
    for phase in row.phases:
        pairs = [
            {side: of.seconds(phase) for side, of in sides.items()} for _ in range(work.rounds)
        ]
        ratios = sorted(pair["torch"] / pair["jax"] for pair in pairs)
        found[phase] = {
            "jax_s": median(pair["jax"] for pair in pairs),
            "torch_s": median(pair["torch"] for pair in pairs),
            "ratio": median(ratios),
            "ratio_min": ratios[0],
            "ratio_max": ratios[-1],
        }
        values = found[phase]
        report(
            f"{name:>12} {phase:<10} jax {values['jax_s']:8.3f} s   torch {values['torch_s']:8.3f} s   "
            f"ratio {values['ratio']:6.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    for side in sides.values():
        side.close()
    peaks = {side: of.peak for side, of in sides.items()}
    report(f"{name:>12} peak       jax {peaks['jax']:8.2f} GiB torch {peaks['torch']:8.2f} GiB")
    return {"phases": found, "peak_rss_gib": peaks, "first_s": first}
