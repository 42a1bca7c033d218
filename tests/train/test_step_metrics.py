"""Metrics of a step that are not its update's."""

import numpy as np
import tiny

from sari_jax.models.work import step_flops
from sari_jax.parallel.mesh import make_mesh
from sari_jax.train.config import Grpo
from sari_jax.train.grading import DrawnBatches, GradedBatch
from sari_jax.train.step_metrics import grpo_metrics, reward_means, step_work

REWARDS = {"accuracy": np.array([[0.0, 1.0]]), "total": np.array([[1.0, 2.0]])}


def batch(samples, lengths, accuracy):
    rows = len(samples)
    return GradedBatch(
        audio_samples=np.array(samples)[:, None],
        prompt_lengths=np.full(rows, 30),
        lengths=np.array(lengths),
        done=np.array(lengths) < 8,
        indices=np.arange(rows),
        rewards={"accuracy": np.array(accuracy), "total": np.array(accuracy)},
    )


def test_the_mean_of_each_reward_is_over_all_batches_and_the_total_comes_first():
    nothing = np.zeros((1, 2))
    graded = GradedBatch(nothing, nothing, nothing, nothing, nothing, REWARDS)
    drawn = DrawnBatches([graded, graded], np.arange(1), [])
    assert list(reward_means(drawn).items()) == [("reward", 1.5), ("accuracy", 0.5)]


def test_metrics_are_over_all_drawn_groups_and_rows_that_are_only_sampled_cost_one_pass(one_tiny):
    first = batch([16_000, 8_000], [[8, 4], [2, 2]], [[1.0, 1.0], [0.0, 1.0]])
    second = batch([16_000, 8_000], [[6, 2], [8, 8]], [[0.0, 1.0], [0.0, 0.0]])
    # Of the four groups the second and the third have spread: the step learns from them.
    drawn = DrawnBatches([first, second], np.array([2, 1]), [np.int32(16), np.int32(32)])
    settings = Grpo(objective="dapo", max_generation_batches=2, num_completions=2)
    trainable = tiny.flatten(one_tiny.params)
    found = grpo_metrics(settings, one_tiny.config, make_mesh(), trainable, drawn)
    assert found["zero_spread"] == 0.5 and found["zero_spread_left"] == 0
    assert found["generation_batches"] == 2
    assert found["completion_tokens"] == 5 and found["done_fraction"] == 5 / 8
    assert found["idle_fraction"] == 1 - 40 / 48
    assert found["audio_seconds"] == 3 and found["examples"] == 4

    def flops(rows, **counts):
        return sum(
            step_work(
                one_tiny.config,
                trainable,
                graded.audio_samples[[row]],
                graded.prompt_lengths[[row]],
                graded.lengths[[row]],
                **counts,
            )["model_tflop"]
            for graded, row in rows
        )

    learned = flops([(first, 1), (second, 0)], passes=2, updates=1)
    sampled = flops([(first, 0), (second, 1)], passes=1, updates=0)
    assert np.isclose(found["model_tflop"], learned + sampled, rtol=1e-12)
    assert learned > 0 and sampled > 0
    whole = step_flops(
        one_tiny.config,
        first.audio_samples,
        first.prompt_lengths,
        first.lengths,
        passes=1,
        updates=0,
        learns=set(),
        adapted=set(),
    )
    assert np.isclose(flops([(first, 0), (first, 1)], passes=1, updates=0), whole / 1e12)
