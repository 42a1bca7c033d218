"""A side of the benchmark: phases named on standard input, their seconds on standard output."""

import json
import resource
import sys
import time
from collections.abc import Callable


def serve(phases: dict[str, Callable[[], object]]) -> None:
    """Runs a phase per line and tells its seconds and the process's peak of resident memory, in GiB."""
    tell({"ready": sorted(phases)})
    for line in sys.stdin:
        begun = time.perf_counter()
        phases[line.strip()]()
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        tell({"seconds": seconds, "peak_rss_gib": peak})


def tell(row: dict[str, object]) -> None:
    print(json.dumps(row), flush=True)
