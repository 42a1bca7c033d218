"""Which of the proofs a change is owed: the parts that it touches whole, and a third of each other part in turn.

    python tests/parts.py BEFORE COUNT

prints a part and its share a line, `runs 2/3`, which are the arguments of `make proofs PART=runs SHARE=2/3`.
BEFORE is the commit that the change starts from; COUNT is the number of commits, which moves the share on.
"""

import re
import subprocess
import sys
from collections.abc import Iterable

PARTS = ("numerics", "runs", "tools")
SHARES = 3
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
    "corpus": ("tools",),
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
    "tests/runs.py": ("runs",),
    "tests/own_reward.py": ("runs",),
    "tests/test_wheel.py": ("tools",),
    "tests/tiny.py": ("numerics",),
    "tests/theirs.py": ("numerics",),
    "tests/recording.py": ("numerics",),
    "tests/conftest.py": PARTS,
    "tests/parts.py": PARTS,
    "constraints.txt": PARTS,
    "setup.cfg": PARTS,
    "pyproject.toml": PARTS,
    "Makefile": PARTS,
    ".ci/run": PARTS,
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


def due(paths: Iterable[str], count: int) -> list[str]:
    """The parts and shares that have to run, those first that run whole."""
    whole, share = touched(paths), f"{count % SHARES + 1}/{SHARES}"
    return [f"{part} 1/1" for part in whole] + [
        f"{part} {share}" for part in PARTS if part not in whole
    ]


def share(tests: list, given: str) -> list:
    """Returns every Nth test, beginning with the Kth, where `given` is K/N.

    Raises:
        ValueError: `given` is not K/N with 1 <= K <= N.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", given)
    start, step = map(int, match.groups()) if match else (0, 0)
    if not 1 <= start <= step:
        raise ValueError(f"--share={given}: give K/N, the Kth of N shares of the tests")
    return tests[start - 1 :: step]


def changed(before: str) -> list[str]:
    """Files that differ from that commit, in the checkout as it is."""
    words = ["git", "diff", "--name-only", before]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()


if __name__ == "__main__":
    print(*due(changed(sys.argv[1]), int(sys.argv[2])), sep="\n")
