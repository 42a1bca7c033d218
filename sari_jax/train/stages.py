"""What one step of each stage does around its jitted update."""

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
from sari_jax.generate.rollout import Completions
from sari_jax.generate.sampling import Sampler
from sari_jax.models.audio_lm import Prompts
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.lora import without_adapter
from sari_jax.models.work import step_flops
from sari_jax.parallel.mesh import (
    all_rows,
    local_rows,
    onto_mesh,
    own_rows,
    shard_batch,
    whole,
)
from sari_jax.rl.advantages import group_advantages, zero_spread
from sari_jax.rl.policy import reference_logprobs
from sari_jax.rl.rewards import score
from sari_jax.train.config import Run
from sari_jax.train.features import TowerFeatures
from sari_jax.train.optimizer import Flat, merge
from sari_jax.train.parameters import learning
from sari_jax.train.reference import on_device
from sari_jax.train.rollouts import Rollouts
from sari_jax.train.samples import Sample, described
from sari_jax.train.state import TrainState
from sari_jax.train.steps import Part, make_grpo_step, make_sft_step

SFT_SAMPLES = 4  # prompts of a batch whose greedy completions are shown


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the loop does in each step, on every host at once.

    Attributes:
        update: (state, batch, whether to show sample completions, the next batch if it is to be decoded already)
            -> `Updated`.
        under_way: the completions that are decoded already, for a checkpoint to hold; none is None.
        take_up: (state, their batch, what `under_way` gave) puts them there again.
    """

    update: Callable[[TrainState, Batch, bool, Batch | None], "Updated"]
    under_way: Callable[[], dict[str, np.ndarray] | None] = lambda: None
    take_up: Callable[[TrainState, Batch, dict[str, np.ndarray]], None] = lambda *_: None


class Updated(NamedTuple):
    """What a step gave.

    Attributes:
        metrics: over all hosts' rows.
        samples: of all rows in GRPO, of some of this host's in SFT; none unless they are asked for.
        numbers: of all rows' records.
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


def make_stage(
    run: Run,
    config: AudioLMConfig,
    processor: Processor,
    mesh: Mesh,
    optimizer: optax.GradientTransformation,
    frozen: Flat,
    reference: Flat,
    rollouts: Rollouts,
) -> Stage:
    make = {"sft": _sft, "grpo": _grpo}[run.stage]
    return make(run, config, processor, mesh, optimizer, frozen, reference, rollouts)


def _features(
    run: Run, config: AudioLMConfig, mesh: Mesh, frozen: Flat
) -> Callable[..., jax.Array | None]:
    """(state, batch, prompts) -> the tower's output, if the tower does not learn; else each pass computes its own."""
    tower = TowerFeatures(config, mesh, run.data.keep_features_gb)

    def features(state: TrainState, batch: Batch, prompts: Prompts) -> jax.Array | None:
        if _tower_learns(state):
            return None
        return tower(merge(state.params, frozen), batch, prompts)

    return features


def _work(config: AudioLMConfig, passes: int) -> Callable[..., dict[str, float]]:
    """(state, of all rows: sounds' samples, prompts' lengths, completions' lengths) -> the step's work by formula."""

    def work(
        state: TrainState, samples: np.ndarray, prompts: np.ndarray, completions: np.ndarray
    ) -> dict[str, float]:
        flops = step_flops(
            config, samples, prompts, completions, passes=passes, **learning(state.params)
        )
        return {
            "model_tflop": flops / 1e12,
            "audio_seconds": float(samples.sum()) / SAMPLE_RATE,
            "examples": len(samples),
        }

    return work


def _tower_learns(state: TrainState) -> bool:
    return any(path.startswith("tower/") for path in state.params)


def _sft(run, config, processor, mesh, optimizer, frozen, reference, rollouts) -> Stage:
    step = make_sft_step(config, optimizer, dropout=run.model.adapter.dropout, seed=run.seed)
    work_of = _work(config, passes=1)
    features_of = _features(run, config, mesh, frozen)
    answer_style = style(run.data.style)
    root = onto_mesh(
        mesh, jax.random.key(run.seed)
    )  # greedy decoding takes a key and does not use it

    def sft(state: TrainState, batch: Batch, sampled: bool, ahead: Batch | None = None) -> Updated:
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
        samples: list[Sample] = []
        if sampled:
            batch, (prompts, answers, _, features) = split[0], parts[0]
            sampler = Sampler(1, answers.shape[-1], processor.end_ids, processor.pad_id, 0.0)
            seeds = shard_batch(mesh, batch.seeds)
            done = rollouts(sampler, state, prompts, seeds, root, features)
            shown = local_rows(mesh, (done.tokens, done.lengths, done.ended))
            tokens, lengths, ended = (array[:SFT_SAMPLES] for array in shown)
            texts = processor.texts(tokens[:, 0], lengths[:, 0])
            for row, (text, record) in enumerate(zip(texts, batch.records, strict=False)):
                scores = [score(text, record, answer_style, run.reward_weights)]
                completions = described([text], lengths[row], ended[row], scores)
                samples.append(Sample(int(batch.seeds[row]), completions))
            watch.lap("sample")
        state, metrics = step(state, frozen, parts)
        watch.lap("update", metrics)
        *rows, numbers = all_rows(mesh, rows)
        work = work_of(state, *rows)
        return Updated(
            state, {**_host(metrics), **work, **watch.seconds}, samples, numbers.tolist(), []
        )

    return Stage(sft)


def _grpo(run, config, processor, mesh, optimizer, frozen, reference, rollouts) -> Stage:
    settings = run.grpo
    step = make_grpo_step(config, settings, optimizer, run.micro_batches)
    work_of = _work(config, passes=3)  # sampling, reference, update
    features_of = _features(run, config, mesh, frozen)
    answer_style = style(run.data.style)
    sampler = Sampler(
        completions=settings.completions,
        max_tokens=settings.max_tokens,
        end_ids=processor.end_ids,
        pad_id=processor.pad_id,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
    )
    root = onto_mesh(mesh, jax.random.key(run.seed))
    compare = jax.jit(lambda rewards: (group_advantages(rewards), zero_spread(rewards)))

    key_of, after = jax.jit(jax.random.fold_in), jax.jit(lambda step: step + 1)
    under_way: list[tuple[Prompts, jax.Array | None, Completions]] = []

    def alike(batch: Batch) -> Batch:
        """In the shapes of all hosts, who wait for each other here: while no device works."""
        return batch.parts(1, run.data.shapes)[0]

    def read(state: TrainState, batch: Batch) -> tuple[Prompts, jax.Array | None]:
        prompts = shard_batch(mesh, batch.prompts)
        return prompts, features_of(state, batch, prompts)

    def decode(
        state: TrainState, batch: Batch, number: jax.Array
    ) -> tuple[Prompts, jax.Array | None, Completions]:
        prompts, features = read(state, batch)
        seeds = shard_batch(mesh, batch.seeds)
        done = rollouts(sampler, state, prompts, seeds, key_of(root, number), features)
        return prompts, features, done

    def grpo(state: TrainState, batch: Batch, sampled: bool, ahead: Batch | None = None) -> Updated:
        watch, behind = Stopwatch(), len(under_way)
        ahead = ahead and alike(ahead)
        current = under_way.pop() if under_way else decode(state, alike(batch), state.step)
        prompts, features, completions = current
        watch.lap("rollout", completions)

        # Dispatched before the host reads the text, so that the two overlap.
        # A reference that waits with the host is held here no longer than that takes.
        reference_scores = reference_logprobs(
            without_adapter(config),
            merge(on_device(reference), frozen),
            prompts,
            completions.tokens,
            features,
            temperature=settings.temperature,
        )
        if ahead is not None:
            under_way.append(decode(state, ahead, after(state.step)))
        tokens, lengths, ended = local_rows(
            mesh, (completions.tokens, completions.lengths, completions.ended)
        )
        texts = processor.texts(tokens.reshape(-1, tokens.shape[-1]), lengths.reshape(-1))
        records = [record for record in batch.records for _ in range(settings.completions)]
        scores = [
            score(text, record, answer_style, run.reward_weights)
            for text, record in zip(texts, records, strict=True)
        ]
        totals = np.array([row["total"] for row in scores], np.float32).reshape(lengths.shape)
        rewards = shard_batch(mesh, totals)
        watch.lap("reward")
        jax.block_until_ready(reference_scores)
        watch.lap("reference")

        advantages, flat = compare(rewards)
        state, metrics = step(
            state, frozen, prompts, completions, reference_scores, advantages, features
        )
        watch.lap("update", metrics)
        values = np.array([list(row.values()) for row in scores], np.float32)
        rows = (batch.prompts.samples, batch.prompts.lengths, lengths)
        own = (*rows, batch.seeds, ended, values.reshape(*lengths.shape, -1))
        *work, numbers, every_end, every_score = all_rows(mesh, own)
        every_length = work[-1]
        right = every_score[..., list(scores[0]).index("accuracy")].mean(1, dtype=np.float64)
        samples: list[Sample] = []
        if sampled:
            every_token = all_rows(mesh, tokens)
            every_advantage = whole(mesh, advantages)
            for row, number in enumerate(numbers.tolist()):
                told = processor.texts(every_token[row], every_length[row])
                each = [dict(zip(scores[0], map(float, v), strict=True)) for v in every_score[row]]
                shown = described(
                    told, every_length[row], every_end[row], each, every_advantage[row]
                )
                samples.append(Sample(number, shown))
        means = every_score.mean((0, 1), dtype=np.float64).tolist()
        means = dict(zip(scores[0], means, strict=True))
        return Updated(
            state,
            {
                "reward": means.pop("total"),
                **means,
                **_host(metrics),
                "zero_spread": float(whole(mesh, flat).mean()),
                "completion_tokens": float(every_length.mean()),
                "ended": float(every_end.mean()),
                "updates_behind": float(behind),
                "rows_idle": float(1 - every_length.sum() / whole(mesh, completions.computed)),
                **work_of(state, *work),
                **watch.seconds,
            },
            samples,
            numbers.tolist(),
            right.tolist(),
        )

    def saved() -> dict[str, np.ndarray] | None:
        return vars(whole(mesh, under_way[0][-1])) if under_way else None

    def take_up(state: TrainState, batch: Batch, arrays: dict[str, np.ndarray]) -> None:
        mine = own_rows(mesh, run.batch_size)
        per_row = {name: array[mine] for name, array in arrays.items() if np.ndim(array)}
        others = {name: array for name, array in arrays.items() if not np.ndim(array)}
        done = Completions(**shard_batch(mesh, per_row), **onto_mesh(mesh, jax.device_put(others)))
        under_way.append((*read(state, alike(batch)), done))

    return Stage(grpo, saved, take_up)


def _host(metrics: dict[str, jax.Array]) -> dict[str, float]:
    return {name: float(value) for name, value in jax.device_get(metrics).items()}
