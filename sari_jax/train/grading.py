"""Grading: the completions of a batch become texts and rewards, on the host."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from sari_jax.data.processor import Batch, Processor
from sari_jax.data.styles import style
from sari_jax.generate.rollout import Completions
from sari_jax.parallel.mesh import local_rows
from sari_jax.rl.advantages import zero_spread
from sari_jax.rl.rewards.completion import Completion
from sari_jax.rl.rewards.registry import Scorer
from sari_jax.train.config import Run


class GradedBatch(NamedTuple):
    """A batch whose completions have rewards, on the host: this process's rows, or those of all processes.

    Attributes:
        audio_samples: [B, A] samples of each clip.
        prompt_lengths: [B] tokens of each prompt.
        lengths: [B, G] tokens of each completion.
        done: [B, G] whether each completion ended before the limit.
        indices: [B] dataset indices.
        rewards: [B, G] by name, `accuracy` and `total` among them.
    """

    audio_samples: np.ndarray
    prompt_lengths: np.ndarray
    lengths: np.ndarray
    done: np.ndarray
    indices: np.ndarray
    rewards: dict[str, np.ndarray]

    def zero_spread(self, reward: str) -> np.ndarray:
        """[B] whether all completions of a group have the same value of this reward."""
        return zero_spread(self.rewards[reward])

    @property
    def pass_rates(self) -> list[float]:
        """The fraction of right completions of each row."""
        return self.rewards["accuracy"].mean(1, dtype=np.float64).tolist()


class DrawnBatches(NamedTuple):
    """All batches that a step drew. A step learns from as many rows as one batch has.

    Attributes:
        graded: every batch, with the rows of all processes.
        rows: [B] the rows that the step learns from, as places in the concatenation of all batches.
        rows_decoded: the rows of decoding work for each batch.
    """

    graded: list[GradedBatch]
    rows: np.ndarray
    rows_decoded: list[jax.Array]

    def of_all_rows(self, values: Callable[[GradedBatch], np.ndarray]) -> np.ndarray:
        """The values of all rows of all batches, concatenated."""
        return np.concatenate([values(graded) for graded in self.graded])

    def of_kept_rows(self, values: Callable[[GradedBatch], np.ndarray]) -> np.ndarray:
        """[B, ...] the values of the rows that the step learns from."""
        return self.of_all_rows(values)[self.rows]


class Grader:
    """Decodes completions to text and computes their rewards."""

    def __init__(self, run: Run, processor: Processor, mesh: Mesh, compute_rewards: Scorer):
        self._settings, self._style = run.grpo, style(run.data.style)
        self._processor, self._mesh = processor, mesh
        self._compute_rewards = compute_rewards

    def __call__(self, batch: Batch, completions: Completions) -> GradedBatch:
        """Grades this process's rows of a batch.

        Raises:
            InputError: a user's own reward fails, or is not a finite number.
        """
        arrays = (completions.tokens, completions.lengths, completions.done)
        tokens, lengths, done = local_rows(self._mesh, arrays)
        texts = self._processor.texts(tokens.reshape(-1, tokens.shape[-1]), lengths.reshape(-1))
        group, limit = self._settings.num_completions, self._settings.max_tokens
        records = [record for record in batch.records for _ in range(group)]
        rows = [
            self._compute_rewards(Completion(text, int(length), limit), record, self._style)
            for text, length, record in zip(texts, lengths.flat, records, strict=True)
        ]
        rewards = {
            name: np.array([row[name] for row in rows], np.float32).reshape(lengths.shape)
            for name in rows[0]
        }
        return GradedBatch(
            audio_samples=batch.prompts.samples,
            prompt_lengths=batch.prompts.lengths,
            lengths=lengths,
            done=done,
            indices=batch.indices,
            rewards=rewards,
        )
