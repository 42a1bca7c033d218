"""The metrics of a step that are not computed in its update: rewards, lengths and model FLOPs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from sari_jax.data.processor import SAMPLE_RATE
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.work import step_flops
from sari_jax.parallel.mesh import fetch_global
from sari_jax.train.config import Grpo
from sari_jax.train.grading import DrawnBatches
from sari_jax.train.parameters import learning


def step_work(
    config: AudioLMConfig,
    trainable: Mapping[str, Any],
    samples: np.ndarray,
    prompts: np.ndarray,
    completions: np.ndarray,
    *,
    passes: int,
    updates: int = 1,
) -> dict[str, float]:
    """Counts a step's work by formula.

    Args:
        samples: [B, A] samples of each clip.
        prompts: [B] tokens of each prompt.
        completions: [B, G] tokens of each completion.
        passes: forward passes over prompts and completions.
        updates: how many of these passes have a backward pass.
    """
    flops = step_flops(
        config,
        samples,
        prompts,
        completions,
        passes=passes,
        updates=updates,
        **learning(trainable),
    )
    return {
        "model_tflop": flops / 1e12,
        "audio_seconds": float(samples.sum()) / SAMPLE_RATE,
        "examples": len(samples),
    }


def grpo_metrics(
    settings: Grpo,
    config: AudioLMConfig,
    mesh: Mesh,
    trainable: Mapping[str, Any],
    drawn: DrawnBatches,
) -> dict[str, float]:
    """Metrics over all groups that a step drew, and the step's work."""
    objective = settings.resolved_objective
    zero_spread = drawn.of_all_rows(lambda batch: batch.zero_spread(objective.spread))
    lengths = drawn.of_all_rows(lambda batch: batch.lengths)
    done = drawn.of_all_rows(lambda batch: batch.done)
    rows_decoded = sum(fetch_global(mesh, drawn.rows_decoded))
    metrics = {
        "zero_spread": float(zero_spread.mean()),
        "completion_tokens": float(lengths.mean()),
        "done_fraction": float(done.mean()),
        "idle_fraction": float(1 - lengths.sum() / rows_decoded),
    }
    if objective.max_generation_batches > 1:
        metrics["generation_batches"] = float(len(drawn.graded))
        metrics["zero_spread_left"] = float(zero_spread[drawn.rows].mean())
    return metrics | _grpo_work(settings, config, trainable, drawn)


def _grpo_work(
    settings: Grpo, config: AudioLMConfig, trainable: Mapping[str, Any], drawn: DrawnBatches
) -> dict[str, float]:
    """The work of all drawn rows: rows that are only sampled, and rows that are also trained on."""
    updates = settings.updates_per_rollout
    # Sampling, the reference, the old log-probabilities, and the updates.
    passes = 1 + settings.uses_reference + settings.needs_old_logprobs + updates
    total: dict[str, float] = {}
    size = len(drawn.rows)
    for number, graded in enumerate(drawn.graded):
        trained = np.isin(np.arange(size) + number * size, drawn.rows)
        for rows, counts in (
            (trained, {"passes": passes, "updates": updates}),
            (~trained, {"passes": 1, "updates": 0}),
        ):
            if rows.any():
                sizes = (
                    graded.audio_samples[rows],
                    graded.prompt_lengths[rows],
                    graded.lengths[rows],
                )
                for name, value in step_work(config, trainable, *sizes, **counts).items():
                    total[name] = total.get(name, 0) + value
    return total


def reward_means(drawn: DrawnBatches) -> dict[str, float]:
    """The mean of each reward over all groups that a step drew; the total is called `reward` and comes first."""
    means = {
        name: float(
            drawn.of_all_rows(lambda batch, name=name: batch.rewards[name]).mean(dtype=np.float64)
        )
        for name in drawn.graded[0].rewards
    }
    return {"reward": means.pop("total"), **means}
