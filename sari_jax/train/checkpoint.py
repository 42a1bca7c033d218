"""One checkpoint step holds everything that a run needs to go on: parameters, optimizer, data iterator, counters.

Any number of processes may save a step, and any other number restore it onto another mesh.

What a run does not train is not stored again: it comes from the model directory, whose fingerprint is. PRNG keys
are folded from (config seed, step) and so are stored as those two numbers.
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
    """Orbax's, which leaves the question of preemption to the loop: JAX counts who asks it, and how often."""

    def reached_preemption(self, step: int) -> bool:
        return False


class Restored(NamedTuple):
    """A checkpoint step.

    Attributes:
        data: the data iterator's state.
        prefetched: the completions that are decoded already for the next batch; None if there are none.
    """

    state: TrainState
    data: dict[str, Any]
    counters: dict[str, Any]
    prefetched: dict[str, np.ndarray] | None


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
        prefetched: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Saves at the state's step, unless that is saved; the write goes on in the background."""
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
        """The newest complete step, into the shapes and shardings of `state`.

        The arrays of `state` are freed first, so that memory never holds two of them. A step whose files are damaged
        is put aside, and the one before it is taken.

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
        """Moves a damaged step out of the way, where a person may look at it, and tells so.

        Raises:
            InputError: on several hosts, of which others may have read their part of it.
        """
        folder = Path(self._manager.directory)
        damaged, aside = folder / str(step), folder.with_name("damaged") / str(step)
        told = f"{damaged}: cannot be read ({_reason(error)})"
        if hosts.is_multihost():
            raise InputError(f"{told}; move it away, and the same command goes on from before")
        aside.parent.mkdir(exist_ok=True)
        if aside.exists():
            shutil.rmtree(aside)  # the same step, damaged before
        damaged.rename(aside)
        self._manager.reload()
        before = f"the run goes on from step {self.steps[-1]}" if self.steps else "none is left"
        hosts.log(f"{told}; it now lies in {aside}, and {before}")

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
        """Until the save under way is complete.

        Raises:
            InputError: it could not be written.
        """
        with self._written():
            self._manager.wait_until_finished()

    @contextmanager
    def _written(self) -> Iterator[None]:
        """What the file system refuses is told as bad input; the steps before are whole."""
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
    """Whether it comes from a full disk, a quota, a read-only folder: TensorStore has them in words alone."""
    while error is not None:
        text = str(error)
        if isinstance(error, OSError) or any(os.strerror(code) in text for code in REFUSALS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _stored(state: TrainState) -> TrainState:
    """What is stored of a state: all but the learning rate, which the settings have."""
    rated = isinstance(state.opt_state, Rated)
    return state.replace(opt_state=state.opt_state.kept) if rated else state


def _whole(stored: TrainState, state: TrainState) -> TrainState:
    """A state from what was stored of it, with the learning rate of `state`."""
    rated = isinstance(state.opt_state, Rated)
    return (
        stored.replace(opt_state=state.opt_state._replace(kept=stored.opt_state))
        if rated
        else stored
    )
