"""The event that a run reports to Python after every step."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepEvent:
    """A step that was made and logged.

    Attributes:
        step: its number, from 1.
        metrics: its numbers by name, as metrics.jsonl has them.
        samples: its rows of samples.jsonl, each a question with its completions and their rewards; empty except at
            the first step and every `samples_every` steps.
    """

    step: int
    metrics: Mapping[str, float]
    samples: tuple[dict[str, Any], ...]


Callback = Callable[[StepEvent], None]
