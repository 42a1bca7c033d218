"""The experiments' steps: each is a command that a user could type, and a finished one is not repeated."""

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
    """Runs one `sari` command and returns its result.

    If `makes` exists already, the command is skipped, so that a repeated experiment goes on where it stopped.
    """
    line = [str(word) for word in words]
    print(f"\n$ sari {shlex.join(line)}", file=sys.stderr)
    if makes and Path(makes).exists():
        print(f"{makes} exists already", file=sys.stderr)
        return None
    with contextlib.redirect_stdout(io.StringIO()) as output:
        code = sari([*line, "--json"])
    print(output.getvalue(), end="", flush=True)
    if code:
        sys.exit(code)
    return json.loads(output.getvalue())


def begin(out: Path, model: str, seed: int, **settings: object) -> None:
    """Builds the starter corpus in `starter`, and the model before training in `base`.

    smol's projector is initialised from the corpus's first captions. With a random projector, its language model would
    learn the questions by heart before the projector passes on anything of the audio.

    Args:
        settings: the experiment's settings; a folder that was begun with other ones is refused.
    """
    claim(out, {"model": model, "seed": seed, **settings})
    starter, base = out / "starter", out / "base"
    step("data", "build", "starter", "--out", starter, "--seed", seed, makes=starter)
    captions = ["--captions", starter / "train.jsonl"] if model == "smol" else []
    step("model", "assemble", model, "--out", base, "--seed", seed, *captions, makes=base)


def train(out: Path, name: str, config: str, start: str, data: str, **settings: object) -> None:
    """Trains the model START on DATA in run-NAME, and exports the result as NAME."""
    given = {"model.path": out / start, "data.train": out / data, **settings}
    overrides = [f"--config.{key}={value}" for key, value in given.items()]
    workdir = out / f"run-{name}"
    if not (out / name).exists():
        result = step("train", "--config", config, "--workdir", workdir, *overrides)
        if not result["finished"]:  # it was asked to stop, so there is no model for the next steps
            end(f"{workdir}: stopped after step {result['step']}; the same command goes on", 1)
    elif not workdir.exists():
        end(f"{workdir}: is gone, but {out / name} exists; name another --out", 2)
    else:
        run = freeze(read_config_file(config, overrides))
        if other := changes(workdir, dataclasses.asdict(run)):
            end(f"{workdir}: was trained with another {', '.join(other)}; name another --out", 2)
    step("export", "--workdir", workdir, "--out", out / name, makes=out / name)


def on_the_way(out: Path, questions: int, every: int) -> dict[str, object]:
    """Returns settings to evaluate on some of the validation questions every few steps."""
    named = {"data": out / "starter/validation.jsonl", "limit": questions, "every": every}
    return {f"held_out.{key}": value for key, value in named.items()}


def evaluate(out: Path, name: str, questions: Path, *options: object) -> None:
    """Answers `questions` with the model NAME; the result is in eval-NAME."""
    words = ["--benchmark", questions, "--model", out / name, "--out", out / f"eval-{name}"]
    step("eval", *words, *options, makes=out / f"eval-{name}")


def claim(out: Path, settings: dict[str, object]) -> None:
    """Exits if the folder holds other files, or an experiment with other settings."""
    marker = out / "experiment.json"
    out.mkdir(parents=True, exist_ok=True)
    if not marker.exists():
        if any(out.iterdir()):
            end(f"{out}: is not empty, and no experiment began it; name another --out", 2)
        write_text(marker, json.dumps(settings, indent=2) + "\n")
    before = read_json(marker)
    settings = json.loads(json.dumps(settings))
    other = [key for key in settings if before.get(key) != settings[key]]
    if other:
        end(f"{out}: was begun with another {', '.join(other)}; name another --out", 2)


def end(line: str, code: int) -> NoReturn:
    print(line, file=sys.stderr)
    sys.exit(code)


def read_json(path: Path | str) -> Any:
    return json.loads(Path(path).read_text())
