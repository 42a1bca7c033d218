"""A side of the benchmark: phases named on standard input, their seconds on standard output."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path


def confine(threads: int) -> None:
    """Leaves the process as many processors, before a library starts its threads: XLA has no setting for theirs."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def serve(phases: dict[str, Callable[[], object]]) -> None:
    """Runs a phase per line and tells its seconds and the process's peak of resident memory, in GiB."""
    tell({"ready": sorted(phases)})
    for line in sys.stdin:
        begun = time.perf_counter()
        phases[line.strip()]()
        tell({"seconds": time.perf_counter() - begun, "peak_rss_gib": peak()})


def peak() -> float:
    """Since this program began; `getrusage` would tell the peak of the process that started it, where that is more."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**20


def tell(row: dict[str, object]) -> None:
    print(json.dumps(row), flush=True)
