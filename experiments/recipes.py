"""Compiles each recipe of a real size for the slices that its docstring names: docs/scale.md holds the table.

The lines `sari compile --config configs/NAME.py --topology ...` of docstrings are run as they are written, each in a
process of its own. A line that was compiled before, by the same code, is not compiled again. Takes some minutes and up
to 8 GB for each.

    python -m experiments.recipes --out runs/recipes [--only NAME ...]

Writes table.md, and a JSON file for each line. Exits with 1 if something does not fit.
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
from sari_jax.settings import nearest

ROOT = Path(__file__).parent.parent
LINE = re.compile(
    r"^ {4}sari (compile --config configs/(\w+)\.py(:[\w,]+)?(?: .*)?)$", re.MULTILINE
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--only", nargs="+", default=[], help="recipes: grpo:qwen2_audio_7b,lora")
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
        kept = args.out / f"{re.sub(r'[:,]', '_', name)}-{digest(words)}.json"
        if not kept.exists():
            write_text(kept, json.dumps(compiled(words), indent=2) + "\n")
        found.append((name, words, json.loads(kept.read_text())))
        write_text(args.out / "table.md", table(found))
    print(table(found))
    return 0 if all(result["fits"] for _, _, result in found) else 1


def recipes() -> Iterator[tuple[str, list[str]]]:
    """Yields (recipe, words of a line) for each such line of a config's docstring."""
    for path in sorted((ROOT / "configs").glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text()), clean=False) or ""
        for line, name, argument in LINE.findall(docstring):
            yield f"{name}{argument}", shlex.split(line)


def digest(words: list[str]) -> str:
    """Hash of all that the compiler's result depends on: the line, its config, this code, releases, the compiler."""
    compiler = [each.version for each in distributions(name="libtpu")]
    config = (ROOT / words[2].partition(":")[0]).read_text()
    content = [words, config, hosts.versions(), compiler]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[
        :12
    ]


def compiled(words: list[str]) -> dict[str, Any]:
    """Runs a line, and returns what it prints as JSON."""
    print(f"sari {shlex.join(words)}", file=sys.stderr)
    command = [sys.executable, "-m", "sari_jax.cli", *words, "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    # 1 means that it does not fit, which is a row of the table.
    if done.returncode not in (0, 1) or not done.stdout:
        sys.exit(done.returncode or 1)
    return json.loads(done.stdout)


def table(found: list[tuple[str, list[str], dict[str, Any]]]) -> str:
    """Returns a Markdown table with a row for each (recipe, words, result)."""
    rows = [
        "| recipe | topology and settings | state | peak | of | in | fits |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, words, result in found:
        where = words[4]
        settings = " ".join(word.removeprefix("--config.") for word in words[5:])
        program, worst = max(result["programs"].items(), key=lambda item: item[1]["peak_hbm_gib"])
        cells = [
            f"`{name}`",
            f"{where} {settings}".strip(),
            f"{result['state_gib_per_chip']:.2f}",
            f"{worst['peak_hbm_gib']:.2f}",
            f"{result['usable_gib_per_chip']:.2f}",
            program,
            "yes" if result["fits"] else "**no**",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
