"""What one step does around its jitted update: what both stages share, and SFT; GRPO's is in `grpo`."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sari_jax.data.processor import SAMPLE_RATE, Batch, Processor
from sari_jax.data.records import Record
from sari_jax.data.styles import style
from sari_jax.generate.layout import DecodingPolicy
from sari_jax.generate.rollout import Completions, encode, rollout
from sari_jax.generate.sampling import Sampler
from sari_jax.models.audio_lm import Prompts
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.work import step_flops
from sari_jax.parallel.mesh import (
    all_rows,
    decoding_mesh,
    local_rows,
    move,
    onto_mesh,
    shard_batch,
    spec,
)
from sari_jax.rl.rewards.completion import Completion
from sari_jax.rl.rewards.registry import make_scorer
from sari_jax.train.config import Run
from sari_jax.train.features import TowerFeatures
from sari_jax.train.optimizer import Flat, merge
from sari_jax.train.state import TrainState
from sari_jax.train.steps import Part, make_sft_step

SFT_SAMPLES = 4  # prompts of a batch whose greedy completions are shown
Samples = list[dict[str, Any]]
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
        samples: of this host's rows.
        numbers: of all rows' records, batch by batch if there were several.
        pass_rates: of all rows, the fraction of completions that were right; none where nothing is sampled.
    """

    state: TrainState
    metrics: dict[str, float]
    samples: Samples
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
        learns = {path.split("/")[0] for path in state.params}
        flops = step_flops(
            config, samples, prompts, completions, passes=passes, updates=updates, learns=learns
        )
        return {
            "model_tflop": flops / 1e12,
            "audio_seconds": float(samples.sum()) / SAMPLE_RATE,
            "examples": len(samples),
        }

    return work


def _tower_learns(state: TrainState) -> bool:
    return any(path.startswith("tower/") for path in state.params)


class Rollouts:
    """Samples in the layout of decoding, and gives completions in that of training.

    The policy is laid out once for all tokens of a rollout; between layouts it exists twice.
    """

    def __init__(self, run: Run, config: AudioLMConfig, mesh: Mesh, frozen: Flat):
        self._config, self._mesh, self._frozen = config, mesh, frozen
        self._decoding = decoding_mesh(mesh, run.mesh.decode_tensor or mesh.shape["tensor"])
        self._policy = DecodingPolicy(config, self._decoding)

    def __call__(
        self,
        sampler: Sampler,
        state: TrainState,
        prompts: Prompts,
        seeds: jax.Array,
        key: jax.Array,
        features: jax.Array | None,
    ) -> Completions:
        flat = {**self._frozen, **state.params}
        if features is None:
            features = encode(self._config, merge(flat, {}), prompts)
        policy, rows = self._policy(flat), NamedSharding(self._decoding, spec("batch"))
        prompts, seeds, features = move((prompts, seeds, features), rows)
        key = move(key, NamedSharding(self._decoding, P()))
        with jax.set_mesh(self._decoding):
            done = rollout(self._config, sampler, policy, prompts, seeds, key, features)
        here = NamedSharding(self._mesh, spec("batch"))
        counted = move(done.computed, NamedSharding(self._mesh, P()))
        return move(done.replace(computed=None), here).replace(computed=counted)


def make_sft(
    run: Run,
    config: AudioLMConfig,
    processor: Processor,
    mesh: Mesh,
    optimizer: optax.GradientTransformation,
    frozen: Flat,
    reference: Flat,
) -> Stage:
    """Of supervised fine-tuning, which has no reference."""
    step = make_sft_step(config, optimizer)
    work_of = make_work(config, passes=1)
    rollouts = Rollouts(run, config, mesh, frozen)
    features_of = make_features(run, config, mesh, frozen)
    answer_style = style(run.data.style)
    score = make_scorer(run.reward_weights, run.grpo.reward_file)
    root = onto_mesh(
        mesh, jax.random.key(run.seed)
    )  # greedy decoding takes a key and does not use it

    def sft(
        state: TrainState, batch: Batch, sampled: bool, ahead: Batch | None, another: Another
    ) -> Updated:
        watch = Stopwatch()
        rows = (
            batch.prompts.samples,
            batch.prompts.lengths,
            batch.answer_mask.sum(-1),
            batch.seeds,
        )
        split = batch.parts(run.micro_batches, run.data.shapes)
        parts = []
        for part in split:
            arrays = shard_batch(mesh, (part.prompts, part.answers, part.answer_mask))
            parts.append(Part(*arrays, features_of(state, part, arrays[0])))
        samples: Samples = []
        if sampled:
            batch, (prompts, answers, _, features) = split[0], parts[0]
            sampler = Sampler(1, answers.shape[-1], processor.end_ids, processor.pad_id, 0.0)
            seeds = shard_batch(mesh, batch.seeds)
            done = rollouts(sampler, state, prompts, seeds, root, features)
            tokens, lengths = local_rows(mesh, (done.tokens, done.lengths))
            lengths = lengths[:SFT_SAMPLES, 0]
            texts = processor.texts(tokens[:SFT_SAMPLES, 0], lengths)
            scores = [
                score(Completion(text, int(length), sampler.max_tokens), record, answer_style)
                for text, length, record in zip(texts, lengths, batch.records, strict=False)
            ]
            samples = sample_rows(batch.records, texts, scores)
            watch.lap("sample")
        state, metrics = step(state, frozen, parts)
        watch.lap("update", metrics)
        *rows, numbers = all_rows(mesh, rows)
        work = work_of(state, *rows)
        return Updated(
            state, {**on_host(metrics), **work, **watch.seconds}, samples, numbers.tolist(), []
        )

    return Stage(sft)


def sample_rows(
    records: Sequence[Record], texts: Sequence[str], scores: Sequence[dict[str, float]]
) -> Samples:
    """What people read beside the curves: as many as the shortest of the three."""
    return [
        {
            "id": record.id,
            "question": record.question,
            "answer": record.choices[record.answer_index],
            "completion": text,
            **row,
        }
        for record, text, row in zip(records, texts, scores, strict=False)
    ]


def on_host(metrics: dict[str, jax.Array]) -> dict[str, float]:
    return {name: float(value) for name, value in jax.device_get(metrics).items()}
