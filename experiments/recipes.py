"""Compiles each config of a real size for the slices that its docstring names: docs/scale.md holds the table.

The lines `sari compile --config configs/NAME.py --topology ...` of docstrings are run as they are written, each in a
process of its own; what is compiled already, by the same code, is not compiled again. Takes some minutes and up to 8 GB
for each.

    python -m experiments.recipes --out runs/recipes [--only NAME ...]

What ends up there: table.md, and a JSON file for each line. Exit 1 where something does not fit.
"""

import argparse
import ast
import hashlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from sari_jax.atomic import write_text
from sari_jax.parallel import hosts
from sari_jax.train.config import nearest

ROOT = Path(__file__).parent.parent
LINE = re.compile(r"^ {4}sari (compile --config configs/(\w+)\.py(?: .*)?)$", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--only", nargs="+", default=[], help="names of configs")
    args = parser.parse_args()
    known = {name for name, _ in recipes()}
    for name in args.only:
        if name not in known:
            parser.error(f"--only {name}: {nearest(name, known)}")
    args.out.mkdir(parents=True, exist_ok=True)
    found = []
    for name, words in recipes():
        if args.only and name not in args.only:
            continue
        kept = args.out / f"{name}-{digest(words)}.json"
        if not kept.exists():
            write_text(kept, json.dumps(compiled(words), indent=2) + "\n")
        found.append((name, words, json.loads(kept.read_text())))
        write_text(args.out / "table.md", table(found))
    print(table(found))
    return 0 if all(told["fits"] for _, _, told in found) else 1


def recipes() -> Iterator[tuple[str, list[str]]]:
    """(config's name, a line's words) of every config whose docstring has such lines."""
    for path in sorted((ROOT / "configs").glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text()), clean=False) or ""
        for line, name in LINE.findall(docstring):
            yield name, shlex.split(line)


def digest(words: list[str]) -> str:
    """Of all that the compiler's answer follows from: the line, its config, this code, the releases, the compiler."""
    compiler = [each.version for each in distributions(name="libtpu")]
    said = [words, (ROOT / words[2]).read_text(), hosts.versions(), compiler]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:12]


def compiled(words: list[str]) -> dict[str, Any]:
    print(f"sari {shlex.join(words)}", file=sys.stderr)
    command = [sys.executable, "-m", "sari_jax.cli", *words, "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1) or not done.stdout:
        sys.exit(done.returncode or 1)
    return json.loads(done.stdout)  # 1: it does not fit, and the table says so


def table(found: list[tuple[str, list[str], dict[str, Any]]]) -> str:
    rows = [
        "| config | topology and settings | state | peak | of | in | fits |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, words, told in found:
        where, settings = words[4], " ".join(word.removeprefix("--config.") for word in words[5:])
        program, worst = max(told["programs"].items(), key=lambda item: item[1]["peak_hbm_gib"])
        cells = [
            f"`{name}`",
            f"{where} {settings}".strip(),
            f"{told['state_gib_per_chip']:.2f}",
            f"{worst['peak_hbm_gib']:.2f}",
            f"{told['usable_gib_per_chip']:.2f}",
            program,
            "yes" if told["fits"] else "**no**",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
