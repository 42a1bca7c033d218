"""Lists the proofs that a change has to run: the parts it touches as a whole, and a third of each other part.

    python tests/parts.py BEFORE COUNT

prints one line per part with its share, such as `runs 2/3`: the arguments of `make proofs PART=runs SHARE=2/3`.
BEFORE is the commit that the change starts from. COUNT is the number of commits; it decides which third is next.
"""

import re
import subprocess
import sys
from collections.abc import Iterable

PARTS = ("numerics", "runs", "tools")
SHARES = 3
# The first characters of a path within sari_jax or tests -> the parts that depend on it.
TOUCHES: dict[str, tuple[str, ...]] = {
    "models": ("numerics",),
    "generate": ("numerics",),
    "rl": ("numerics",),
    "sft": ("numerics",),
    "hf": ("numerics",),
    "assemble": ("numerics",),
    "train/": ("runs",),
    "train/steps": ("numerics", "runs"),
    "train/updates": ("numerics", "runs"),
    "train/state": ("numerics", "runs"),
    "train/scoring": ("numerics", "runs"),
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
    "api": ("tools",),
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
    "tests/test_api_page.py": ("tools",),
    "examples/": ("tools",),
    "docs/api.md": ("tools",),
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
    """Returns the parts that changed files belong to, in the order of PARTS."""
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
    """Returns the parts and shares that have to run; those that run as a whole come first."""
    whole = touched(paths)
    share = f"{count % SHARES + 1}/{SHARES}"
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
    """Returns the files of the working tree that differ from a commit."""
    words = ["git", "diff", "--name-only", before]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()


if __name__ == "__main__":
    print(*due(changed(sys.argv[1]), int(sys.argv[2])), sep="\n")
