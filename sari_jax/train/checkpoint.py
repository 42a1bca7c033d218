"""One checkpoint step holds everything that a run needs to go on: parameters, optimizer, data iterator, counters.

Any number of processes may save a step, and any other number restore it onto another mesh.

What a run does not train is not stored again: it comes from the model directory, whose fingerprint is. PRNG keys
are folded from (config seed, step) and so are stored as those two numbers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from sari_jax.atomic import write_text
from sari_jax.digests import corpus_digest, model_digest
from sari_jax.errors import InputError
from sari_jax.rl.rewards.file import digest as reward_digest
from sari_jax.train.config import Run, defaults, freeze
from sari_jax.train.optimizer import Rated
from sari_jax.train.state import TrainState

# Settings of the machine, not of what is computed.
ELSEWHERE = ("mesh.", "data.workers")


class _Manager(ocp.CheckpointManager):
    """Orbax's, which leaves the question of preemption to the loop: JAX counts who asks it, and how often."""

    def reached_preemption(self, step: int) -> bool:
        return False


class Restored(NamedTuple):
    """A checkpoint step.

    Attributes:
        data: the data iterator's state.
        under_way: of the batch that comes next, what was decoded of it already, if anything was.
    """

    state: TrainState
    data: dict[str, Any]
    counters: dict[str, Any]
    under_way: dict[str, np.ndarray] | None


class Checkpoints:
    """A run's checkpoint folder; every save is written aside and renamed by Orbax, and only then an old one deleted."""

    def __init__(self, workdir: Path | str, *, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = _Manager((Path(workdir) / "checkpoints").absolute(), options=options)

    @property
    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(
        self,
        state: TrainState,
        data: dict[str, Any],
        counters: dict[str, Any],
        under_way: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Saves at the state's step; the write goes on in the background."""
        items = {"under_way": ocp.args.StandardSave(under_way)} if under_way else {}
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_stored(state)),
                data=ocp.args.JsonSave(data),
                counters=ocp.args.JsonSave(counters),
                **items,
            ),
        )

    def restore(self, state: TrainState) -> Restored | None:
        """The newest complete step, into the shapes and shardings of `state`.

        The arrays of `state` are freed first, so that memory never holds two of them.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        stored = _stored(state)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, stored)
        for array in jax.tree.leaves(stored):
            array.delete()
        args = {
            "state": ocp.args.StandardRestore(abstract),
            "data": ocp.args.JsonRestore(),
            "counters": ocp.args.JsonRestore(),
        }
        if (self._manager.directory / str(step) / "under_way").exists():
            args["under_way"] = ocp.args.StandardRestore()
        found = self._manager.restore(step, args=ocp.args.Composite(**args))
        state = _whole(found["state"], state)
        return Restored(state, found["data"], found["counters"], found.get("under_way"))

    def params(self, abstract: Any, step: int | None = None) -> dict[str, np.ndarray]:
        """The trained parameters of a step (the newest by default) in host memory, whatever devices trained them.

        Raises:
            InputError: no such step; the steps there are, are listed.
        """
        step = self._manager.latest_step() if step is None else step
        if step not in self.steps:
            raise InputError(f"no checkpoint of step {step}; there are: {self.steps or 'none'}")
        args = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(
                {"params": abstract},
                restore_args={
                    "params": jax.tree.map(
                        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), abstract
                    )
                },
                partial_restore=True,
            )
        )
        return self._manager.restore(step, args=args)["state"]["params"]

    def wait(self) -> None:
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _stored(state: TrainState) -> TrainState:
    """Without the rate, which the settings have."""
    rated = isinstance(state.opt_state, Rated)
    return state.replace(opt_state=state.opt_state.kept) if rated else state


def _whole(stored: TrainState, state: TrainState) -> TrainState:
    """The other way, with the rate of `state`."""
    rated = isinstance(state.opt_state, Rated)
    return (
        stored.replace(opt_state=state.opt_state._replace(kept=stored.opt_state))
        if rated
        else stored
    )


def fingerprints(run: Run) -> dict[str, str]:
    """Of what a run reads: its model's config and weights, its questions, and a user's rewards.

    Of whole files, wherever they differ.
    """
    found = {"model": model_digest(run.model.path), "data": corpus_digest(Path(run.data.train))}
    if run.held_out.every:
        found["held_out"] = corpus_digest(Path(run.held_out.data))
    if run.grpo.reward_file:
        found["rewards"] = reward_digest(run.grpo.reward_file)
    return found


def claim(workdir: Path | str, config: dict[str, Any]) -> None:
    """Writes the run's settings, or checks them against those that the folder was started with.

    Where it runs may change from one start to the next, `mesh` and `data.workers` therefore too.

    Raises:
        InputError: the folder cannot be written, or belongs to a run with other settings.
    """
    path = Path(workdir) / "config.json"
    if path.exists():
        if changed := changes(workdir, config):
            raise InputError(
                f"{workdir}: holds a run with another {', '.join(changed)}; name a new --workdir, or repeat"
                " the old settings to resume it"
            )
        return
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
        write_text(path, _text(config))
    except OSError as error:
        raise InputError(
            f"{workdir}: cannot be written ({error.strerror}); name another --workdir"
        ) from error


def changes(workdir: Path | str, config: dict[str, Any]) -> list[str]:
    """Settings, of those given, that a workdir was started with other values of, wherever it ran.

    Raises:
        InputError: not the folder of a run.
    """
    before, now = (flat(settings) for settings in (_settings(workdir), json.loads(_text(config))))
    # A setting that came later than the run has its default.
    fresh = flat(json.loads(_text(defaults().to_dict())))
    return [
        key
        for key in now
        if before.get(key, fresh.get(key)) != now[key] and not key.startswith(ELSEWHERE)
    ]


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their full names."""
    return traverse_util.flatten_dict(dict(settings), sep=".")


def _text(config: dict[str, Any]) -> str:
    return json.dumps(config, indent=2, sort_keys=True, default=list) + "\n"


def read_run(workdir: Path | str) -> Run:
    """The settings that a workdir was started with.

    Raises:
        InputError: not the folder of a run, or another model stands in its model directory now.
    """
    settings = _settings(workdir)
    before = settings.pop("fingerprints", {})
    run = freeze(settings)
    if before.get("model") != model_digest(run.model.path):
        raise InputError(
            f"{run.model.path}: not the model that {workdir} was started from; put that one back"
        )
    return run


def _settings(workdir: Path | str) -> dict[str, Any]:
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise InputError(f"{workdir}: no config.json; name the --workdir of a run")
    try:
        settings = json.loads(path.read_text())
        if isinstance(settings, dict):
            _rename(settings)
            return settings
    except ValueError:
        pass
    raise InputError(f"{path}: not the settings of a run; it was changed or cut short")


def _rename(settings: dict[str, Any]) -> None:
    """What a folder from before calls otherwise."""
    model, grpo = (settings.get(name) for name in ("model", "grpo"))
    if isinstance(model, dict) and isinstance(model.get("remat"), bool):
        # What was yes or no before it had names.
        model["remat"] = "layer" if model["remat"] else "none"
    if isinstance(model, dict) and "adapter" not in model:
        # The default was written out before adapters had another.
        if model.get("trainable") == ["projector/*", "decoder/*"]:
            model["trainable"] = []
    if isinstance(grpo, dict) and "clip_epsilon" in grpo:
        # Of a time when GRPO was the only objective: what was its default then is its own value now.
        epsilon, weights = grpo.pop("clip_epsilon"), {}
        for name in ("accuracy", "format"):
            weights[name] = grpo.pop(f"{name}_weight", 1.0)
        grpo["clip_low"] = grpo["clip_high"] = -1.0 if epsilon == 0.2 else epsilon
        if grpo.get("kl_coefficient") == 0.04:
            grpo["kl_coefficient"] = -1.0
        even = set(weights.values()) == {1.0}
        grpo["rewards"] = [] if even else [f"{name}={weights[name]:g}" for name in weights]
