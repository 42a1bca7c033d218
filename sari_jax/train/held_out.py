"""Held-out questions: a run answers them between its steps, one greedy answer each, and is not trained on them."""

from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from sari_jax.data.curriculum import Curriculum
from sari_jax.data.pipeline import Batches, Reader
from sari_jax.data.processor import Processor
from sari_jax.data.schedule import make_schedule
from sari_jax.data.styles import style
from sari_jax.errors import one_line
from sari_jax.generate.sampling import Sampler
from sari_jax.parallel import hosts
from sari_jax.parallel.mesh import all_rows, local_row_indices, local_rows, put_on_mesh, shard_batch
from sari_jax.rl.rewards.completion import Completion
from sari_jax.rl.rewards.registry import Scorer
from sari_jax.train.config import Run
from sari_jax.train.feed import TooManyBad, gather_from_hosts
from sari_jax.train.preemption import Stop
from sari_jax.train.questions import Questions, too_many
from sari_jax.train.rollouts import Rollouts
from sari_jax.train.samples import Sample, described
from sari_jax.train.state import TrainState


class HeldOutResult(NamedTuple):
    """The result of asking all held-out questions once.

    Attributes:
        scores: `rows`, the number of questions answered; `accuracy` and `format`, fractions of it; `completion_tokens`,
            a mean.
        samples: each question with its answer.
        skipped: by id, why a question could not be read.
    """

    scores: dict[str, float]
    samples: list[Sample]
    skipped: dict[str, str]


class HeldOut:
    """Answers all held-out questions, `batch_size` at a time, in the order of their file.

    It is stateless: a resumed run gets the same results as an uninterrupted one.
    """

    def __init__(
        self,
        run: Run,
        questions: Questions,
        processor: Processor,
        mesh: Mesh,
        rollouts: Rollouts,
        compute_rewards: Scorer,
    ):
        self._run, self._questions, self._mesh = run, questions, mesh
        self._records = questions.records
        self._processor, self._rollouts, self._compute_rewards = (
            processor,
            rollouts,
            compute_rewards,
        )
        self._style = style(run.data.style)
        self._sampler = Sampler(
            num_completions=1,
            max_tokens=run.held_out.max_tokens,
            end_ids=processor.end_ids,
            pad_id=processor.pad_id,
            temperature=0.0,
        )
        # Greedy decoding takes a key and does not use it.
        self._key = put_on_mesh(mesh, jax.random.key(run.seed))

    def due(self, step: int) -> bool:
        every = self._run.held_out.every
        return every > 0 and (step % every == 0 or step == self._run.steps)

    def __call__(self, state: TrainState, stop: Stop = lambda: False) -> HeldOutResult | None:
        """Asks every question once; all hosts call this.

        Args:
            stop: asked before every batch, whether to end there.

        Returns:
            The result, or None if it was stopped.

        Raises:
            TooManyBad: on every host the same: more questions cannot be read than `data.max_bad_fraction` allows.
        """
        run, count = self._run, len(self._records)
        size = run.batch_size
        order = Curriculum(order="as_written")
        schedule = make_schedule(self._records, order, batch_size=size, seed=run.seed)
        rows = tuple(local_row_indices(self._mesh, size))
        reader = Reader(self._records, self._processor, self._style, run.data.shapes, rows=rows)
        batches, samples = Batches(schedule, reader), []
        quiet = None if hosts.is_primary() else True
        for _ in tqdm(range(-(-count // size)), desc="held out", leave=False, disable=quiet):
            if stop():
                batches.close()
                return None
            with hosts.raise_on_all_hosts():
                read = next(batches)
            (batch,) = read.parts(1, run.data.shapes)
            prompts, seeds = shard_batch(self._mesh, (batch.prompts, batch.indices))
            found = self._rollouts(self._sampler, state, prompts, seeds, self._key, None)
            rows = local_rows(self._mesh, (found.tokens, found.lengths, found.done))
            indices, *answers = all_rows(self._mesh, (batch.indices, *rows))
            samples += self._grade(indices, *answers)
        batches.close()
        skipped = self._skipped(batches.bad)
        # The last batch is filled up with the first questions again. A question that could not be read is replaced by
        # another one, which does not count here.
        pairs = zip(range(count), samples, strict=False)
        samples = [sample for index, sample in pairs if sample.index == index]
        (scores,) = zip(*(sample.completions for sample in samples), strict=True)
        values = {
            "rows": len(samples),
            "accuracy": float(np.mean([row["accuracy"] for row in scores])),
            "format": float(np.mean([self._style.matches(row["text"]) for row in scores])),
            "completion_tokens": float(np.mean([row["tokens"] for row in scores])),
        }
        return HeldOutResult(values, samples, skipped)

    def _skipped(self, bad: dict[int, str]) -> dict[str, str]:
        """The questions of all hosts that could not be read: why, by id."""
        found: dict[str, str] = {}
        mine = {self._records[number].id: one_line(why) for number, why in bad.items()}
        for other, _ in gather_from_hosts(mine, ""):
            found |= other
        for id, why in found.items():
            hosts.log(f"held out: skipped record {id}: {why}")
        asked = self._questions
        last, why = next(reversed(found.items()), ("", ""))
        which = f"the last is {last}: {why}"
        if refused := too_many(self._run, len(asked.bad) + len(found), asked.total, which):
            raise TooManyBad(f"{self._run.held_out.data}: {refused}")
        return found

    def _grade(
        self, indices: np.ndarray, tokens: np.ndarray, lengths: np.ndarray, done: np.ndarray
    ) -> list[Sample]:
        """The answers to a batch of questions, with their rewards."""
        texts = self._processor.texts(tokens[:, 0], lengths[:, 0])
        samples = []
        for row, index in enumerate(indices.tolist()):
            completion = Completion(texts[row], int(lengths[row, 0]), self._sampler.max_tokens)
            rewards = self._compute_rewards(completion, self._records[index], self._style)
            shown = described([texts[row]], lengths[row], done[row], [rewards])
            samples.append(Sample(index, shown))
        return samples
