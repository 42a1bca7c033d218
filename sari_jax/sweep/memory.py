"""The memory that is free for another run.

psutil reports the machine's memory and ignores the limits of containers and jobs, which Linux's control groups hold.
"""

import itertools
import operator
import re
from collections.abc import Iterator
from pathlib import Path

import psutil

# Control groups come in two versions. Each row has a version's controller, as /proc/self/cgroup names it and as its
# folder is named; the files of the limit and of the use; and the line of memory.stat with the bytes of cached files
# that can be dropped.
VERSIONS = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(
    mounted: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int:
    """Returns the free bytes of the machine, or of the control group of this process that has the fewest left.

    Args:
        mounted: folder of control groups.
        own: the file that names the groups of this process.
    """
    return min([psutil.virtual_memory().available, *_left(mounted, own)])


def _left(mounted: Path, own: Path) -> Iterator[int]:
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not on Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller, limit, use, droppable in VERSIONS:
            if controller not in controllers.split(","):
                continue
            # The limit of a group holds for all groups within it, so each folder of the path is read. In a container
            # the path may be one of the machine outside.
            within = Path(path).parts[1:]
            for folder in itertools.accumulate(
                within, operator.truediv, initial=mounted / controller
            ):
                try:
                    most, used = (int((folder / name).read_text()) for name in (limit, use))
                    stat = (folder / "memory.stat").read_text()
                    kept = re.search(rf"^{droppable} (\d+)$", stat, re.MULTILINE)
                    # Cached files are dropped when memory is needed.
                    yield most - used + int(kept[1])
                except (OSError, ValueError, TypeError):  # no such group, or no limit: "max"
                    continue
