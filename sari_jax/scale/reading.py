"""How fast batches are read: clips per second and per core, and memory per worker process."""

import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sari_jax.data.curriculum import Curriculum
from sari_jax.data.pipeline import Batches, Reader
from sari_jax.data.processor import Processor, Shapes
from sari_jax.data.records import read_records
from sari_jax.data.schedule import make_schedule
from sari_jax.data.styles import STYLES
from sari_jax.errors import InputError
from sari_jax.hf.config import read_config
from sari_jax.train.metrics import read_metrics

WARM = 2  # batches that are not timed, for each worker: processes start, caches fill


def reading_speeds(
    data: str, model: str, workers: Sequence[int], *, batches: int, batch_size: int
) -> dict[str, Any]:
    """Reads a corpus as a run does and nothing else, once for each number of worker processes.

    Returns:
        `clip_seconds`, of the clips on average; `cores`; and by number of workers `clips_per_second`,
        `clips_per_second_per_core` and `worker_mib`, the memory of the largest worker (0: of this process).
    """
    records = read_records(data)
    processor = Processor(model, read_config(model))
    cores = len(os.sched_getaffinity(0))
    rows: dict[str, Any] = {}
    sound = clips = 0
    for count in workers:
        schedule = make_schedule(records, Curriculum(order="random"), batch_size=batch_size, seed=0)
        reader = Reader(records, processor, STYLES["structured"], Shapes())
        reading = Batches(schedule, reader, workers=count)
        for _ in range(WARM * max(1, count)):
            next(reading)
        begun, sound, clips = time.perf_counter(), 0.0, 0
        for _ in range(batches):
            samples = next(reading).prompts.samples
            sound, clips = sound + samples.sum() / 16_000, clips + int((samples > 0).sum())
        seconds = time.perf_counter() - begun
        largest = _largest(count)
        reading.close()
        rows[str(count)] = {
            "clips_per_second": clips / seconds,
            "clips_per_second_per_core": clips / seconds / cores,
            "sound_seconds_per_second": sound / seconds,
            "worker_mib": largest,
        }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cores": cores, "clip_seconds": sound / clips, "own_peak_mib": peak, "workers": rows}


def wait_share(workdir: str) -> dict[str, float]:
    """Of a run's step time, the share in which it waited for a batch; the first step, which compiles, left out.

    Raises:
        InputError: no steps are written down there.
    """
    rows = read_metrics(workdir)[1:]
    if not rows:
        raise InputError(f"{workdir}: no metrics of two steps or more; name the --workdir of a run")
    waited, whole = (sum(row[name] for row in rows) for name in ("seconds_data", "seconds"))
    return {"steps": len(rows), "seconds": whole, "seconds_data": waited, "share": waited / whole}


def table(told: dict[str, Any]) -> str:
    lines = [
        f"clips of {told['clip_seconds']:.1f} s on {told['cores']} cores",
        f"{'workers':>8}{'clips/s':>10}{'per core':>10}{'x real time':>13}{'MiB each':>10}",
    ]
    for count, row in told["workers"].items():
        lines.append(
            f"{count:>8}{row['clips_per_second']:>10.0f}{row['clips_per_second_per_core']:>10.0f}"
            f"{row['sound_seconds_per_second']:>13.0f}{row['worker_mib']:>10.0f}"
        )
    return "\n".join(lines)


def _largest(workers: int) -> float:
    """MiB of the largest process that reads."""
    return max((_mib(pid) for pid in (_children() if workers else [os.getpid()])), default=0.0)


def _children() -> list[int]:
    """The processes that this one's threads started, where the system tells them."""
    lists = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(pid) for path in lists for pid in path.read_text().split()]


def _mib(pid: int) -> float:
    """The most memory that a process has held so far, in MiB; 0 of one that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    sizes = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(sizes.get("VmHWM", "0 kB").split()[0]) / 1024
