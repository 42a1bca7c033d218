"""The worker loop of a benchmark's side: phases are named on standard input, seconds go to standard output."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path


def confine(threads: int) -> None:
    """Restricts the process to `threads` processors.

    Call it before a library starts its threads: XLA has no setting for their number.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def serve(phases: dict[str, Callable[[], object]]) -> None:
    """Runs one phase per line; prints its seconds and the process's peak of resident memory in GiB."""
    print_row({"ready": sorted(phases)})
    for line in sys.stdin:
        begun = time.perf_counter()
        phases[line.strip()]()
        print_row({"seconds": time.perf_counter() - begun, "peak_rss_gib": peak_rss()})


def peak_rss() -> float:
    """Returns the peak of resident memory in GiB since this program began.

    `getrusage` would return the peak of the parent process if that is larger.
    """
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**20


def print_row(row: dict[str, object]) -> None:
    print(json.dumps(row), flush=True)
