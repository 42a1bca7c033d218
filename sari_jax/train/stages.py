"""What one step does around its jitted update: what both stages share, and SFT; GRPO's is in `grpo`."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from sari_jax.data.processor import SAMPLE_RATE, Batch, Processor
from sari_jax.data.styles import style
from sari_jax.generate.sampling import Sampler
from sari_jax.models.audio_lm import Prompts
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.work import step_flops
from sari_jax.parallel.mesh import (
    all_rows,
    local_rows,
    onto_mesh,
    shard_batch,
)
from sari_jax.rl.rewards.completion import Completion
from sari_jax.rl.rewards.registry import Scorer
from sari_jax.train.config import Run
from sari_jax.train.features import TowerFeatures
from sari_jax.train.optimizer import Flat, merge
from sari_jax.train.parameters import learning
from sari_jax.train.rollouts import Rollouts
from sari_jax.train.samples import Sample, described
from sari_jax.train.state import TrainState
from sari_jax.train.steps import Part, make_sft_step

SFT_SAMPLES = 4  # prompts of a batch whose greedy completions are shown
# (a batch's numbers, its pass rates) -> the batch that comes after it.
Another = Callable[[list[int], list[float]], Batch]


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the loop does in each step, on every host at once.

    Attributes:
        update: (state, batch, whether to show sample completions, the next batch if it is to be decoded already,
            what draws another batch for the same step) -> `Updated`.
        under_way: the completions that are decoded already, for a checkpoint to hold; none is None.
        take_up: (state, their batch, what `under_way` gave) puts them there again.
    """

    update: Callable[[TrainState, Batch, bool, Batch | None, Another], "Updated"]
    under_way: Callable[[], dict[str, np.ndarray] | None] = lambda: None
    take_up: Callable[[TrainState, Batch, dict[str, np.ndarray]], None] = lambda *_: None


class Updated(NamedTuple):
    """What a step gave.

    Attributes:
        metrics: over all hosts' rows.
        samples: of all groups that GRPO learns from, of some of this host's rows in SFT; none unless asked for.
        numbers: of all rows' records, batch by batch if there were several.
        pass_rates: of all rows, the fraction of completions that were right; none where nothing is sampled.
    """

    state: TrainState
    metrics: dict[str, float]
    samples: list[Sample]
    numbers: list[int]
    pass_rates: list[float]


class Stopwatch:
    """Splits a step's time into named parts; a part ends when its arrays are there."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str, wait_for: Any = None) -> None:
        jax.block_until_ready(wait_for)
        now = time.perf_counter()
        self.seconds[f"seconds_{name}"], self._last = now - self._last, now


def make_features(
    run: Run, config: AudioLMConfig, mesh: Mesh, frozen: Flat
) -> Callable[..., jax.Array | None]:
    """(state, batch, prompts) -> the tower's output, if the tower does not learn; else each pass computes its own."""
    tower = TowerFeatures(config, mesh, run.data.keep_features_gb)

    def features(state: TrainState, batch: Batch, prompts: Prompts) -> jax.Array | None:
        if _tower_learns(state):
            return None
        return tower(merge(state.params, frozen), batch, prompts)

    return features


def make_work(
    config: AudioLMConfig, *, passes: int, updates: int = 1
) -> Callable[..., dict[str, float]]:
    """(state, of all rows: sounds' samples, prompts' lengths, completions' lengths) -> the step's work by formula."""

    def work(
        state: TrainState, samples: np.ndarray, prompts: np.ndarray, completions: np.ndarray
    ) -> dict[str, float]:
        work = {"passes": passes, "updates": updates, **learning(state.params)}
        flops = step_flops(config, samples, prompts, completions, **work)
        return {
            "model_tflop": flops / 1e12,
            "audio_seconds": float(samples.sum()) / SAMPLE_RATE,
            "examples": len(samples),
        }

    return work


def _tower_learns(state: TrainState) -> bool:
    return any(path.startswith("tower/") for path in state.params)


def make_sft(
    run: Run,
    config: AudioLMConfig,
    processor: Processor,
    mesh: Mesh,
    optimizer: optax.GradientTransformation,
    frozen: Flat,
    reference: Flat,
    rollouts: Rollouts,
    score: Scorer,
) -> Stage:
    """Of supervised fine-tuning, which has no reference."""
    step = make_sft_step(config, optimizer, dropout=run.model.adapter.dropout, seed=run.seed)
    work_of = make_work(config, passes=1)
    features_of = make_features(run, config, mesh, frozen)
    answer_style = style(run.data.style)
    # Greedy decoding takes a key and does not use it.
    root = onto_mesh(mesh, jax.random.key(run.seed))

    def sft(
        state: TrainState, batch: Batch, sampled: bool, ahead: Batch | None, another: Another
    ) -> Updated:
        watch = Stopwatch()
        # In the shapes of all hosts, who exchange its rows.
        (batch,) = batch.parts(1, run.data.shapes)
        rows = (
            batch.prompts.samples,
            batch.prompts.lengths,
            batch.answer_mask.sum(-1),
            batch.indices,
        )
        split = [batch]
        if run.micro_batches > 1:
            split = batch.parts(run.micro_batches, run.data.shapes)
        parts = []
        for part in split:
            arrays = shard_batch(mesh, (part.prompts, part.answers, part.answer_mask))
            parts.append(Part(*arrays, features_of(state, part, arrays[0])))
        samples: list[Sample] = []
        if sampled:
            batch, (prompts, answers, _, features) = split[0], parts[0]
            sampler = Sampler(1, answers.shape[-1], processor.end_ids, processor.pad_id, 0.0)
            seeds = shard_batch(mesh, batch.indices)
            done = rollouts(sampler, state, prompts, seeds, root, features)
            shown = local_rows(mesh, (done.tokens, done.lengths, done.done))
            tokens, lengths, ended = (array[:SFT_SAMPLES] for array in shown)
            texts = processor.texts(tokens[:, 0], lengths[:, 0])
            for row, (text, record) in enumerate(zip(texts, batch.records, strict=False)):
                said = Completion(text, int(lengths[row, 0]), sampler.max_tokens)
                scores = [score(said, record, answer_style)]
                completions = described([text], lengths[row], ended[row], scores)
                samples.append(Sample(int(batch.indices[row]), completions))
            watch.lap("sample")
        state, metrics = step(state, frozen, parts)
        watch.lap("update", metrics)
        *rows, numbers = all_rows(mesh, rows)
        work = work_of(state, *rows)
        return Updated(
            state, {**on_host(metrics), **work, **watch.seconds}, samples, numbers.tolist(), []
        )

    return Stage(sft)


def on_host(metrics: dict[str, jax.Array]) -> dict[str, float]:
    return {name: float(value) for name, value in jax.device_get(metrics).items()}
