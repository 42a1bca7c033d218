"""One checkpoint step holds everything that a run needs to go on: parameters, optimizer, data iterator, counters.

What a run does not train is not stored again: it comes from the model directory, whose fingerprint is. PRNG keys
are folded from (config seed, step) and so are stored as those two numbers.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp

from sari_jax.errors import InputError
from sari_jax.train.config import Run, freeze
from sari_jax.train.state import TrainState


class Checkpoints:
    """A run's checkpoint folder; every save is written aside and renamed by Orbax."""

    def __init__(self, workdir: Path | str, *, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(
            (Path(workdir) / "checkpoints").absolute(), options=options
        )

    @property
    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(
        self, state: TrainState, data: grain.DatasetIterator, counters: dict[str, Any]
    ) -> None:
        """Saves at the state's step; the write goes on in the background."""
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=grain.checkpoint.CheckpointSave(data),
                counters=ocp.args.JsonSave(counters),
            ),
        )

    def restore(
        self, state: TrainState, data: grain.DatasetIterator
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest complete step, into the shapes and shardings of `state`; `data` is moved in place."""
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        found = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract),
                data=grain.checkpoint.CheckpointRestore(data),
                counters=ocp.args.JsonRestore(),
            ),
        )
        return found["state"], found["counters"]

    def params(self, abstract: Any, step: int | None = None) -> dict[str, jax.Array]:
        """The trained parameters of a step (the newest by default), for export.

        Raises:
            InputError: no such step; the steps there are, are listed.
        """
        step = self._manager.latest_step() if step is None else step
        if step not in self.steps:
            raise InputError(f"no checkpoint of step {step}; there are: {self.steps or 'none'}")
        args = ocp.args.Composite(
            state=ocp.args.PyTreeRestore({"params": abstract}, partial_restore=True)
        )
        return self._manager.restore(step, args=args)["state"]["params"]

    def wait(self) -> None:
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def fingerprint(model_dir: Path | str) -> str:
    """Of a model directory's config and weight headers: enough to notice that another model stands there."""
    digest = hashlib.sha256()
    for path in sorted(Path(model_dir).glob("*")):
        if path.name == "config.json" or path.suffix == ".safetensors":
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                digest.update(file.read(1 << 20))
    return digest.hexdigest()[:16]


def claim(workdir: Path | str, config: dict[str, Any]) -> None:
    """Writes the run's settings, or checks them against those that the folder was started with.

    Raises:
        InputError: the folder cannot be written, or belongs to a run with other settings.
    """
    path = Path(workdir) / "config.json"
    text = json.dumps(config, indent=2, sort_keys=True, default=list) + "\n"
    if path.exists():
        before = json.loads(path.read_text())
        changed = [key for key in config if before.get(key) != json.loads(text)[key]]
        if changed:
            raise InputError(
                f"{workdir}: holds a run with another {', '.join(changed)}; name a new --workdir, or repeat"
                " the old settings to resume it"
            )
        return
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}.partial")
        aside.write_text(text)
        aside.replace(path)
    except OSError as error:
        raise InputError(
            f"{workdir}: cannot be written ({error.strerror}); name another --workdir"
        ) from error


def read_run(workdir: Path | str) -> Run:
    """The settings that a workdir was started with.

    Raises:
        InputError: not the folder of a run.
    """
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise InputError(f"{workdir}: no config.json; name the --workdir of a run")
    settings = json.loads(path.read_text())
    settings.pop("model_fingerprint", None)
    return freeze(settings)
