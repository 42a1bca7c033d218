"""How much memory there is for another run. psutil tells the machine's, and knows of no container's or job's limit."""

import itertools
import operator
import re
from collections.abc import Iterator
from pathlib import Path

import psutil

# Of Linux's control groups, which come in two versions: the controller as /proc/self/cgroup names it and the folder it
# is mounted at, the files of limit and use, and what memory.stat calls files that were read and that nobody needs.
VERSIONS = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(
    mounted: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int:
    """Bytes: what the machine has, or the least that any group with a limit that this process is in has left.

    Args:
        mounted: where Linux tells of control groups, if there are any.
        own: the file that names those of this process.
    """
    return min([psutil.virtual_memory().available, *_left(mounted, own)])


def _left(mounted: Path, own: Path) -> Iterator[int]:
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not on Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller, limit, use, unneeded in VERSIONS:
            if controller not in controllers.split(","):
                continue
            # A group's limit holds for all within it. In a container the path may be of the machine outside.
            within = Path(path).parts[1:]
            for folder in itertools.accumulate(
                within, operator.truediv, initial=mounted / controller
            ):
                try:
                    most, used = (int((folder / name).read_text()) for name in (limit, use))
                    stat = (folder / "memory.stat").read_text()
                    kept = re.search(rf"^{unneeded} (\d+)$", stat, re.MULTILINE)
                    # Files that were read make room when it is asked for.
                    yield most - used + int(kept[1])
                except (OSError, ValueError, TypeError):  # no such group, or without a limit: "max"
                    continue
