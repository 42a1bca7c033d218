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

from sari_jax.errors import InputError
from sari_jax.scale.work import Work, make

PHASES = ("rollout", "reference", "update", "grpo_step", "sft_step")
# name -> (does the tower learn, how PyTorch lays a group out, phases). The first is the headline.
ROWS = {
    "repeated": ("trained", "repeated", PHASES),
    "encode_once": ("trained", "once", PHASES[:4]),
    "frozen_tower": ("frozen", "repeated", ("grpo_step",)),
}


class Side:
    """A worker process that runs phases on demand."""

    def __init__(self, module: str, threads: int, *words: str):
        limits = {
            "OMP_NUM_THREADS": str(threads),
            "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu"),
        }
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
    """Times every phase of the rows; the first row's stand at the top of the result too.

    Raises:
        InputError: an unknown row; PyTorch is not installed; a side that broke off.
    """
    unknown = [row for row in rows if row not in ROWS]
    if unknown or not rows:
        raise InputError(f"row {(unknown or [''])[0]!r} is unknown; choose {', '.join(ROWS)}")
    told: dict[str, Any] = {"rows": {}}
    with tempfile.TemporaryDirectory() as folder:
        try:
            make(work, Path(folder))
        except ImportError as error:
            raise InputError(
                "sari bench compares with PyTorch: pip install 'sari_jax[bench]'"
            ) from error
        for row in rows:
            told["rows"][row] = _row(work, row, folder, report)
    return told["rows"][rows[0]] | told | {"work": dataclasses.asdict(work)}


def _row(work: Work, row: str, folder: str, report: Callable[[str], None]) -> dict[str, Any]:
    tower, form, phases = ROWS[row]
    sides = {
        "jax": Side("jax_side", work.threads, folder, tower),
        "torch": Side("torch_side", work.threads, folder, tower, form),
    }
    first = {name: sum(side.seconds(p) for p in phases) for name, side in sides.items()}
    found = {}
    for phase in phases:
        pairs = [
            {name: side.seconds(phase) for name, side in sides.items()} for _ in range(work.rounds)
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
            f"{row:>12} {phase:<10} jax {values['jax_s']:8.3f} s   torch {values['torch_s']:8.3f} s   "
            f"ratio {values['ratio']:6.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    for side in sides.values():
        side.close()
    peaks = {name: side.peak for name, side in sides.items()}
    report(f"{row:>12} peak       jax {peaks['jax']:8.2f} GiB torch {peaks['torch']:8.2f} GiB")
    return {"phases": found, "peak_rss_gib": peaks, "first_s": first}
