"""Checkpoints. One step holds everything that a run needs to go on: parameters, optimizer, data iterator, counters.

A step that some number of processes saved can be restored by any other number, onto another mesh.

Frozen parameters are not stored: they come from the model directory, whose fingerprint is stored. PRNG keys are folded
from (config seed, step), and so are stored as those two numbers.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from sari_jax.errors import InputError
from sari_jax.parallel import hosts
from sari_jax.train.optimizer import Rated
from sari_jax.train.state import TrainState

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES)


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, which never asks about preemption: JAX counts these calls, and the loop makes them."""

    def reached_preemption(self, step: int) -> bool:
        return False


class Restored(NamedTuple):
    """A restored checkpoint step.

    Attributes:
        data: the state of the data iterator.
        prefetched: the completions that are decoded already for the next batch; None if there are none.
    """

    state: TrainState
    data: dict[str, Any]
    counters: dict[str, Any]
    prefetched: dict[str, np.ndarray] | None


class Checkpoints:
    """The checkpoint folder of a run. Orbax writes a step aside, renames it, and only then deletes an old one."""

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
        prefetched: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Saves the state's step, unless it is saved already. The write goes on in the background."""
        items = {"prefetched": ocp.args.StandardSave(prefetched)} if prefetched else {}
        self.wait()
        if int(state.step) in self.steps:
            return
        with self._written():
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
        """Restores the newest complete step into the shapes and shardings of `state`.

        The arrays of `state` are freed first, so that memory never holds them twice. A step whose files are damaged is
        moved aside, and the step before it is restored.

        Raises:
            InputError: there are steps, and none can be read.
        """
        folder = Path(self._manager.directory)
        none_whole = f"{folder}: none of its checkpoints can be read; name a new --workdir"
        if not self.steps:
            if any(folder.with_name("damaged").glob("*")):
                raise InputError(none_whole)
            return None
        stored = _stored(state)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, stored)
        for array in jax.tree.leaves(stored):
            array.delete()
        while self.steps:
            step = self.steps[-1]
            try:
                found = self._read(step, abstract)
            except (MemoryError, jax.errors.JaxRuntimeError):
                raise  # no fault of the files
            except Exception as error:
                self._put_aside(step, error)
                continue
            state = _whole(found["state"], state)
            return Restored(state, found["data"], found["counters"], found.get("prefetched"))
        raise InputError(none_whole)

    def _read(self, step: int, abstract: TrainState) -> Any:
        args = {
            "state": ocp.args.StandardRestore(abstract),
            "data": ocp.args.JsonRestore(),
            "counters": ocp.args.JsonRestore(),
        }
        if (self._manager.directory / str(step) / "prefetched").exists():
            args["prefetched"] = ocp.args.StandardRestore()
        return self._manager.restore(step, args=ocp.args.Composite(**args))

    def _put_aside(self, step: int, error: Exception) -> None:
        """Moves a damaged step aside, where a person may look at it, and logs it.

        Raises:
            InputError: on several hosts, since others may have read their part of the step.
        """
        folder = Path(self._manager.directory)
        damaged, aside = folder / str(step), folder.with_name("damaged") / str(step)
        problem = f"{damaged}: cannot be read ({_reason(error)})"
        if hosts.is_multihost():
            raise InputError(f"{problem}; move it away, and the same command goes on from before")
        aside.parent.mkdir(exist_ok=True)
        if aside.exists():
            shutil.rmtree(aside)  # the same step, damaged before
        damaged.rename(aside)
        self._manager.reload()
        before = f"the run goes on from step {self.steps[-1]}" if self.steps else "none is left"
        hosts.log(f"{problem}; it now lies in {aside}, and {before}")

    def params(self, abstract: Any, step: int | None = None) -> dict[str, np.ndarray]:
        """Reads the trained parameters of a step, by default the newest, into host memory.

        Raises:
            InputError: there is no such step; the message lists the steps that exist.
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
        """Waits until the save in progress is complete.

        Raises:
            InputError: it could not be written.
        """
        with self._written():
            self._manager.wait_until_finished()

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Raises an InputError for what the file system refuses; the steps before are whole."""
        try:
            yield
        except Exception as error:
            if not _refused(error):
                raise
            self._manager.reload()
            last = f"step {self.steps[-1]}" if self.steps else "the beginning"
            raise InputError(
                f"{self._manager.directory}: a checkpoint cannot be written ({_reason(error)}); make room, and the"
                f" same command goes on from {last}"
            ) from error

    def close(self) -> None:
        self._manager.close()


def _reason(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text:.200}"


def _refused(error: BaseException | None) -> bool:
    """Whether an error means a full disk, a quota or a read-only folder. TensorStore reports these as text only."""
    while error is not None:
        text = str(error)
        if isinstance(error, OSError) or any(os.strerror(code) in text for code in REFUSALS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _stored(state: TrainState) -> TrainState:
    """The part of a state that is stored: all but the learning rate, which is a setting."""
    rated = isinstance(state.opt_state, Rated)
    return state.replace(opt_state=state.opt_state.kept) if rated else state


def _whole(stored: TrainState, state: TrainState) -> TrainState:
    """The state from its stored part and the learning rate of `state`."""
    rated = isinstance(state.opt_state, Rated)
    return (
        stored.replace(opt_state=state.opt_state._replace(kept=stored.opt_state))
        if rated
        else stored
    )
