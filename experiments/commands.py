"""What the experiments' steps have in common: each is a command that a user could type, and is not done twice."""

import contextlib
import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from sari_jax.cli import main as sari


def step(*words: object, makes: Path | str = "") -> Any:
    """Runs one `sari` command and returns what it tells.

    What it makes and is there already is not made again, so that a rerun goes on.
    """
    line = [str(word) for word in words]
    print(f"\n$ sari {shlex.join(line)}", file=sys.stderr)
    if makes and Path(makes).exists():
        print(f"{makes} is there already", file=sys.stderr)
        return None
    with contextlib.redirect_stdout(io.StringIO()) as told:
        code = sari([*line, "--json"])
    print(told.getvalue(), end="", flush=True)
    if code:
        sys.exit(code)
    return json.loads(told.getvalue())


def begin(out: Path, model: str, seed: str) -> None:
    """The model before training in `base`, and the starter corpus in `starter`."""
    step("model", "assemble", model, "--out", out / "base", "--seed", seed, makes=out / "base")
    claim(out, seed)
    starter = out / "starter"
    step("data", "build", "starter", "--out", starter, "--seed", seed, makes=starter)


def train(out: Path, name: str, config: str, start: str, data: str, **settings: object) -> None:
    """Trains the model START on DATA in run-NAME, and exports what came of it as NAME."""
    given = {"model.path": out / start, "data.train": out / data, **settings}
    overrides = [f"--config.{key}={value}" for key, value in given.items()]
    workdir = out / f"run-{name}"
    if not (out / name).exists():
        step("train", "--config", config, "--workdir", workdir, *overrides)
    step("export", "--workdir", workdir, "--out", out / name, makes=out / name)


def on_the_way(out: Path, questions: int, every: int) -> dict[str, object]:
    """Settings: so many of the validation questions are answered every so many steps."""
    named = {"data": out / "starter/validation.jsonl", "limit": questions, "every": every}
    return {f"held_out.{key}": value for key, value in named.items()}


def evaluate(out: Path, name: str, questions: Path, *options: str) -> None:
    """Answers `questions` with the model NAME, in eval-NAME."""
    words = ["--benchmark", questions, "--model", out / name, "--out", out / f"eval-{name}"]
    step("eval", *words, *options, makes=out / f"eval-{name}")


def claim(out: Path, seed: str) -> None:
    """Refuses to go on with another seed's model and corpus."""
    marker = out / "seed"
    if marker.exists() and marker.read_text().strip() != seed:
        print(
            f"{out}: holds seed {marker.read_text().strip()}; name another --out", file=sys.stderr
        )
        sys.exit(2)
    marker.write_text(seed + "\n")


def read_json(path: Path | str) -> Any:
    return json.loads(Path(path).read_text())
