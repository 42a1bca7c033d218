"""The interface between the loop and a stage of training. `sft` and `grpo` implement it."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from sari_jax.data.processor import Batch
from sari_jax.train.samples import Sample
from sari_jax.train.state import TrainState

# (indices, pass rates) of the last batch -> the batch after it. The order of the data may follow the pass rates.
DrawBatch = Callable[[list[int], list[float]], Batch]


class StepResult(NamedTuple):
    """The result of one step.

    Attributes:
        state: the state after the update.
        metrics: over all hosts' rows. The loop needs `loss`, `skipped`, `examples`, `audio_seconds` and `model_tflop`.
        samples: completions for people to read: of all groups that GRPO learns from, of a few of this host's rows in
            SFT. Empty unless asked for.
        indices: the dataset index of every row, batch by batch if the step drew several.
        pass_rates: the fraction of right completions of every row; empty where nothing is sampled.
    """

    state: TrainState
    metrics: dict[str, float]
    samples: list[Sample]
    indices: list[int]
    pass_rates: list[float]


@runtime_checkable
class Stage(Protocol):
    """The methods that the loop calls in every step, on all hosts at once."""

    def step(
        self,
        state: TrainState,
        batch: Batch,
        *,
        next_batch: Batch | None,
        draw_batch: DrawBatch,
        sample: bool,
    ) -> StepResult:
        """Makes one step.

        Args:
            state: donated.
            next_batch: the batch of the next step, if its completions are to be decoded in this one.
            draw_batch: reports the last batch's pass rates to the order of the data, and returns the batch after it.
            sample: whether to return sample completions.
        """

    def prefetched(self) -> dict[str, np.ndarray] | None:
        """The completions that are decoded already for the next step, for a checkpoint; None if there are none."""

    def load_prefetched(
        self, state: TrainState, batch: Batch, arrays: dict[str, np.ndarray]
    ) -> None:
        """Restores what `prefetched` returned; `batch` holds the questions of these completions."""


class Stopwatch:
    """Splits a step's time into named phases."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str, wait_for: Any = None) -> None:
        """Ends a phase: once the arrays of `wait_for` are computed, or at once if there are none."""
        jax.block_until_ready(wait_for)
        now = time.perf_counter()
        self.seconds[f"seconds_{name}"] = now - self._last
        self._last = now


def to_host(metrics: dict[str, jax.Array]) -> dict[str, float]:
    """Reads an update's metrics from the device."""
    return {name: float(value) for name, value in jax.device_get(metrics).items()}
