"""Which of the proofs a change is owed: those of the parts that it touches, and one more in rotation.

    python tests/parts.py BEFORE COUNT

prints them, the touched ones first, with a `*` before the one that has its turn alone. BEFORE is the commit that the
change starts from; COUNT numbers the change.
"""

import subprocess
import sys
from collections.abc import Iterable

PARTS = ("numerics", "runs", "tools")
# Beginnings of paths, within sari_jax and its tests alike, and the parts that depend on them.
TOUCHES: dict[str, tuple[str, ...]] = {
    "models": ("numerics",),
    "generate": ("numerics",),
    "rl": ("numerics",),
    "sft": ("numerics",),
    "hf": ("numerics",),
    "assemble": ("numerics",),
    "train/": ("runs",),
    "train/steps": ("numerics", "runs"),
    "train/optimizer": ("numerics", "runs"),
    "train/adapters": ("numerics", "runs"),
    "parallel": ("numerics", "runs"),
    "data/pipeline": ("runs",),
    "data/roster": ("runs",),
    "data/inspection": ("runs",),
    "data/processor": ("runs",),
    "data/schedule": ("runs",),
    "data/curriculum": ("runs",),
    "audio": ("runs",),
    "digests": ("runs",),
    "data/sources/starter": ("tools",),
    "data/synthesize": ("tools",),
    "sweep": ("runs",),
    "report": ("tools",),
    "scale": ("tools",),
    "evaluate": ("tools",),
    "cli": ("tools",),
    "noise": ("tools",),
}
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "tpu_scripts/": ("tools",),
    "gpu_scripts/": ("tools",),
    "experiments/": ("tools",),
    "constraints.txt": PARTS,
    "setup.cfg": PARTS,
    "tests/conftest.py": PARTS,
}


def touched(paths: Iterable[str]) -> list[str]:
    """The parts that changed files belong to, in PARTS' order."""
    found: set[str] = set()
    for path in paths:
        _, _, within = path.replace("/test_", "/").partition("/")
        table = ELSEWHERE
        if path.startswith(("sari_jax/", "tests/")) and path not in ELSEWHERE:
            table, path = TOUCHES | ELSEWHERE, within
        for start, parts in table.items():
            if path.startswith(start):
                found |= set(parts)
    return [part for part in PARTS if part in found]


def due(paths: Iterable[str], count: int) -> tuple[list[str], str | None]:
    """The parts that have to run, and the one whose turn it is, where that is none of them."""
    owed = touched(paths)
    turn = PARTS[count % len(PARTS)]
    return owed, None if turn in owed else turn


def changed(before: str) -> list[str]:
    """Files that differ from that commit, in the checkout as it is."""
    words = ["git", "diff", "--name-only", before]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()


if __name__ == "__main__":
    owed, turn = due(changed(sys.argv[1]), int(sys.argv[2]))
    print(*owed, *([f"*{turn}"] if turn else []))
