"""What the experiments' steps have in common: each is a command that a user could type, and is not done twice."""

import contextlib
import dataclasses
import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any, NoReturn

from sari_jax.atomic import write_text
from sari_jax.cli import main as sari
from sari_jax.train.config import freeze
from sari_jax.train.flags import read_config_file
from sari_jax.train.workdir import changes


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


def begin(out: Path, model: str, seed: int, **settings: object) -> None:
    """The starter corpus in `starter`, and the model before training in `base`.

    smol's projector starts from the corpus's first captions: its language model would learn questions by heart before
    a projector from nothing hears.

    Args:
        settings: of the experiment; a folder that was begun with others is refused.
    """
    claim(out, {"model": model, "seed": seed, **settings})
    starter, base = out / "starter", out / "base"
    step("data", "build", "starter", "--out", starter, "--seed", seed, makes=starter)
    captions = ["--captions", starter / "train.jsonl"] if model == "smol" else []
    step("model", "assemble", model, "--out", base, "--seed", seed, *captions, makes=base)


def train(out: Path, name: str, config: str, start: str, data: str, **settings: object) -> None:
    """Trains the model START on DATA in run-NAME, and exports what came of it as NAME."""
    given = {"model.path": out / start, "data.train": out / data, **settings}
    overrides = [f"--config.{key}={value}" for key, value in given.items()]
    workdir = out / f"run-{name}"
    if not (out / name).exists():
        told = step("train", "--config", config, "--workdir", workdir, *overrides)
        if not told["finished"]:  # told to stop: no model for the steps that follow
            end(f"{workdir}: stopped after step {told['step']}; the same command goes on", 1)
    elif not workdir.exists():
        end(f"{workdir}: is gone, and {out / name} is there; name another --out", 2)
    else:
        run = freeze(read_config_file(config, overrides))
        if other := changes(workdir, dataclasses.asdict(run)):
            end(f"{workdir}: was trained with another {', '.join(other)}; name another --out", 2)
    step("export", "--workdir", workdir, "--out", out / name, makes=out / name)


def on_the_way(out: Path, questions: int, every: int) -> dict[str, object]:
    """Settings: so many of the validation questions are answered every so many steps."""
    named = {"data": out / "starter/validation.jsonl", "limit": questions, "every": every}
    return {f"held_out.{key}": value for key, value in named.items()}


def evaluate(out: Path, name: str, questions: Path, *options: object) -> None:
    """Answers `questions` with the model NAME, in eval-NAME."""
    words = ["--benchmark", questions, "--model", out / name, "--out", out / f"eval-{name}"]
    step("eval", *words, *options, makes=out / f"eval-{name}")


def claim(out: Path, settings: dict[str, object]) -> None:
    """Refuses to go on with what something else left, or an experiment of other settings."""
    marker = out / "experiment.json"
    out.mkdir(parents=True, exist_ok=True)
    if not marker.exists():
        if any(out.iterdir()):
            end(f"{out}: is not empty, and no experiment began it; name another --out", 2)
        write_text(marker, json.dumps(settings, indent=2) + "\n")
    before, settings = read_json(marker), json.loads(json.dumps(settings))
    other = [key for key in settings if before.get(key) != settings[key]]
    if other:
        end(f"{out}: was begun with another {', '.join(other)}; name another --out", 2)


def end(line: str, code: int) -> NoReturn:
    print(line, file=sys.stderr)
    sys.exit(code)


def read_json(path: Path | str) -> Any:
    return json.loads(Path(path).read_text())
