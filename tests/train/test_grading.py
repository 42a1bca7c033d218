"""Batches with rewards, and those that a step drew."""

import numpy as np

from sari_jax.rl.objectives import OBJECTIVES
from sari_jax.train.grading import DrawnBatches, GradedBatch


def graded(**rewards):
    nothing = np.zeros((1, 2))
    return GradedBatch(nothing, nothing, nothing, nothing, nothing, rewards)


def test_groups_without_spread():
    batch = graded(
        accuracy=np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]),
        total=np.array([[1.0, 1.0], [0.1, 0.1], [0.0, 1.0]]),
    )
    assert batch.zero_spread("total").tolist() == [True, True, False]
    # A DAPO group has spread if some answers are right and not all, whatever their length is worth.
    assert batch.zero_spread(OBJECTIVES["dapo"].spread).tolist() == [True, False, True]
    assert batch.pass_rates == [0.0, 0.5, 0.0]


def test_the_rows_that_a_step_learns_from():
    batches = [graded(total=np.array([[0.0], [1.0]])), graded(total=np.array([[2.0], [3.0]]))]
    drawn = DrawnBatches(batches, rows=np.array([3, 1]), rows_decoded=[])
    assert drawn.of_all_rows(lambda batch: batch.rewards["total"])[:, 0].tolist() == [0, 1, 2, 3]
    assert drawn.of_kept_rows(lambda batch: batch.rewards["total"])[:, 0].tolist() == [3, 1]
