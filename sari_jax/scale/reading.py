"""Measures how fast batches are read: clips per second and per core, and memory per worker process."""

import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sari_jax.data.curriculum import Curriculum
from sari_jax.data.pipeline import Batches, Reader
from sari_jax.data.processor import SAMPLE_RATE, Processor, Shapes
from sari_jax.data.records import read_records
from sari_jax.data.schedule import make_schedule
from sari_jax.data.styles import STYLES
from sari_jax.errors import InputError
from sari_jax.hf.config import read_config
from sari_jax.train.metrics import read_metrics

# Batches per worker that are not timed: meanwhile processes start and caches fill.
WARM = 2


def reading_speeds(
    data: str, model: str, workers: Sequence[int], *, batches: int, batch_size: int
) -> dict[str, Any]:
    """Reads a corpus as a run does, without training, once for each number of worker processes.

    Returns:
        `clip_seconds`, the mean length of the clips; `cores`; and for each number of workers `clips_per_second`,
        `clips_per_second_per_core` and `worker_mib`, the memory of the largest worker, or of
        this process if there are 0 workers.
    """
    records = read_records(data)
    processor = Processor(model, read_config(model))
    cores = len(os.sched_getaffinity(0))
    rows: dict[str, Any] = {}
    audio = clips = 0
    for count in workers:
        schedule = make_schedule(records, Curriculum(order="random"), batch_size=batch_size, seed=0)
        reader = Reader(records, processor, STYLES["structured"], Shapes())
        reading = Batches(schedule, reader, workers=count)
        for _ in range(WARM * max(1, count)):
            next(reading)
        begun = time.perf_counter()
        audio = 0.0
        clips = 0
        for _ in range(batches):
            samples = next(reading).prompts.samples
            audio += samples.sum() / SAMPLE_RATE
            clips += int((samples > 0).sum())
        seconds = time.perf_counter() - begun
        largest = _largest(count)
        reading.close()
        rows[str(count)] = {
            "clips_per_second": clips / seconds,
            "clips_per_second_per_core": clips / seconds / cores,
            "sound_seconds_per_second": audio / seconds,
            "worker_mib": largest,
        }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cores": cores, "clip_seconds": audio / clips, "own_peak_mib": peak, "workers": rows}


def wait_share(workdir: str) -> dict[str, float]:
    """Returns the share of a run's step time in which it waited for a batch.

    The first step, which compiles, is left out.

    Raises:
        InputError: the workdir has metrics of fewer than two steps.
    """
    rows = read_metrics(workdir)[1:]
    if not rows:
        raise InputError(f"{workdir}: no metrics of two steps or more; name the --workdir of a run")
    waited = sum(row["seconds_data"] for row in rows)
    whole = sum(row["seconds"] for row in rows)
    return {"steps": len(rows), "seconds": whole, "seconds_data": waited, "share": waited / whole}


def table(speeds: dict[str, Any]) -> str:
    """Formats the result of `reading_speeds` for people."""
    lines = [
        f"clips of {speeds['clip_seconds']:.1f} s on {speeds['cores']} cores",
        f"{'workers':>8}{'clips/s':>10}{'per core':>10}{'x real time':>13}{'MiB each':>10}",
    ]
    for count, row in speeds["workers"].items():
        lines.append(
            f"{count:>8}{row['clips_per_second']:>10.0f}{row['clips_per_second_per_core']:>10.0f}"
            f"{row['sound_seconds_per_second']:>13.0f}{row['worker_mib']:>10.0f}"
        )
    return "\n".join(lines)


def _largest(workers: int) -> float:
    """Returns the memory in MiB of the largest process that reads."""
    return max((_mib(pid) for pid in (_children() if workers else [os.getpid()])), default=0.0)


def _children() -> list[int]:
    """Returns the child processes of this one; none if the system does not list them."""
    lists = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(pid) for path in lists for pid in path.read_text().split()]


def _mib(pid: int) -> float:
    """Returns the peak of a process's memory in MiB; 0 if the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    sizes = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(sizes.get("VmHWM", "0 kB").split()[0]) / 1024
