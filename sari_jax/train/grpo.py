"""A step of GRPO (Shao et al. 2024) and its relatives, for a batch of B prompts:

generate     the policy samples a group of G completions for each prompt
grade        the host decodes them to text and computes their rewards [B, G]
resample     groups whose rewards are all equal are replaced by groups of further batches, as in DAPO; only with
             grpo.max_generation_batches above 1
score        log-probabilities [B, G, T]: the reference's, if there is a KL, and the sampling policy's, if the update
             cannot compute them itself
advantages   each reward relative to its group, for instance (r - mean r) / (std r + eps)
update       gradient steps on the clipped objective: see `rl.loss` and `rl.objectives`

In a step that does not resample, the devices score while the host grades.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from sari_jax.data.processor import Batch, Processor
from sari_jax.generate.rollout import Completions
from sari_jax.models.config import AudioLMConfig
from sari_jax.parallel.mesh import (
    all_rows,
    fetch_global,
    local_row_indices,
    put_on_mesh,
    shard_batch,
)
from sari_jax.rl.advantages import ADVANTAGES
from sari_jax.rl.groups import refill, take
from sari_jax.rl.kl import IN_REWARD, penalised
from sari_jax.rl.objectives import Objective
from sari_jax.rl.rewards.registry import Scorer
from sari_jax.train.config import Run
from sari_jax.train.grading import DrawnBatches, GradedBatch, Grader
from sari_jax.train.optimizer import Flat
from sari_jax.train.rollouts import GroupSampler, Rollouts
from sari_jax.train.samples import Sample, described
from sari_jax.train.scoring import LogprobScorer
from sari_jax.train.stages import DrawBatch, StepResult, Stopwatch, to_host
from sari_jax.train.state import TrainState
from sari_jax.train.step_metrics import grpo_metrics, reward_means
from sari_jax.train.updates import Rollout, grpo_update


class GrpoStage:
    """The steps of GRPO and its relatives; see `Stage`.

    Args:
        frozen: the parameters that do not learn.
        reference: the trained parameters before step 1, without adapters; empty where the objective has no KL.
        compute_rewards: computes the rewards of a completion by name.
    """

    def __init__(
        self,
        run: Run,
        config: AudioLMConfig,
        processor: Processor,
        mesh: Mesh,
        *,
        optimizer: optax.GradientTransformation,
        frozen: Flat,
        reference: Flat,
        rollouts: Rollouts,
        compute_rewards: Scorer,
    ):
        self._run, self._config, self._mesh = run, config, mesh
        self._processor, self._frozen = processor, frozen
        self._objective = run.grpo.resolved_objective
        self._generate = GroupSampler(
            run, config, processor, mesh, frozen=frozen, rollouts=rollouts
        )
        self._grade = Grader(run, processor, mesh, compute_rewards)
        self._score = LogprobScorer(run.grpo, config, frozen=frozen, reference=reference)
        self._update = functools.partial(
            grpo_update,
            config=config,
            settings=run.grpo,
            optimizer=optimizer,
            micro_batches=run.micro_batches,
        )
        self._next_rollout: Rollout | None = None

    def step(
        self,
        state: TrainState,
        batch: Batch,
        *,
        next_batch: Batch | None,
        draw_batch: DrawBatch,
        sample: bool,
    ) -> StepResult:
        """Makes one step."""
        watch = Stopwatch()
        # All hosts exchange shapes here, before their devices have work.
        batch = self._generate.padded(batch)
        next_batch = next_batch and self._generate.padded(next_batch)
        rollout, updates_behind = self._take_prefetched()
        if rollout is None:
            rollout = self._generate(state, batch)
        watch.lap("generate", rollout.completions)

        # The devices score, and generate for the next step, while the host grades.
        resamples = self._objective.max_generation_batches > 1
        if not resamples:
            rollout = self._score(state, rollout)
        if next_batch is not None:
            self._prefetch(state, next_batch)
        graded = self._grade(batch, rollout.completions)
        watch.lap("grade")

        rewards, drawn = graded.rewards["total"], None
        if resamples:
            rollout, drawn = self._resample(state, rollout, graded, draw_batch)
            watch.lap("resample")
            rollout = self._score(state, rollout)
            rewards = drawn.of_kept_rows(lambda batch: batch.rewards["total"])[self._local_rows]
        rewards = shard_batch(self._mesh, rewards)
        self._score.wait(rollout)
        watch.lap("score")

        advantages = compute_advantages(
            rewards,
            rollout.completions.mask,
            rollout.old,
            rollout.reference,
            rollout.unmoved,
            objective=self._objective,
        )
        rollout = rollout._replace(advantages=advantages)
        state, metrics = self._update(state, self._frozen, rollout)
        watch.lap("update", metrics)
        # Hosts exchange what they graded here. Earlier, the exchange would wait for the next step's completions.
        drawn = drawn or self._as_drawn(graded, rollout)
        metrics = to_host(metrics) | {"updates_behind": float(updates_behind)}
        return StepResult(
            state=state,
            metrics=self._with_rewards(metrics, state, drawn) | watch.seconds,
            samples=self._samples(drawn, rollout) if sample else [],
            indices=drawn.of_all_rows(lambda batch: batch.indices).tolist(),
            pass_rates=[rate for batch in drawn.graded for rate in batch.pass_rates],
        )

    def prefetched(self) -> dict[str, np.ndarray] | None:
        """The completions that are decoded ahead, with their old log-probabilities if there are any."""
        if self._next_rollout is None:
            return None
        rollout = self._next_rollout
        old = {} if rollout.old is None else {"old": fetch_global(self._mesh, rollout.old)}
        return {**vars(fetch_global(self._mesh, rollout.completions)), **old}

    def load_prefetched(
        self, state: TrainState, batch: Batch, arrays: dict[str, np.ndarray]
    ) -> None:
        """Restores what `prefetched` returned; `batch` holds the questions of these completions."""
        rows = {name: x[self._local_rows] for name, x in arrays.items() if np.ndim(x)}
        scalars = {name: x for name, x in arrays.items() if not np.ndim(x)}
        placed = shard_batch(self._mesh, rows) | put_on_mesh(self._mesh, jax.device_put(scalars))
        old = placed.pop("old", None)
        prompts, features = self._generate.place(state, self._generate.padded(batch))
        self._next_rollout = Rollout(prompts, Completions(**placed), features, old=old)

    def _take_prefetched(self) -> tuple[Rollout | None, int]:
        """(the rollout that was decoded ahead, the number of updates since its policy)"""
        rollout, self._next_rollout = self._next_rollout, None
        return rollout, 0 if rollout is None else self._run.grpo.updates_per_rollout

    def _prefetch(self, state: TrainState, next_batch: Batch) -> None:
        """Generates the next step's completions, with the old log-probabilities that need this state."""
        rollout = self._generate(state, next_batch, next_step=True)
        self._next_rollout = self._score.with_old(state, rollout)

    @property
    def _local_rows(self) -> list[int]:
        return local_row_indices(self._mesh, self._run.batch_size)

    def _as_drawn(self, graded: GradedBatch, rollout: Rollout) -> DrawnBatches:
        """The first batch of a step, with the rows of all hosts, before any resampling."""
        rows_decoded = [rollout.completions.rows_decoded]
        return DrawnBatches(
            [all_rows(self._mesh, graded)], np.arange(self._run.batch_size), rows_decoded
        )

    def _resample(
        self, state: TrainState, rollout: Rollout, graded: GradedBatch, draw_batch: DrawBatch
    ) -> tuple[Rollout, DrawnBatches]:
        """Draws further batches until every group has spread, or the limit is reached; see `rl.groups`."""
        drawn = self._as_drawn(graded, rollout)
        spread = self._objective.spread
        rollout, size = rollout.rows_only(), self._run.batch_size
        zero_spread = drawn.graded[0].zero_spread(spread)
        while zero_spread.any() and len(drawn.graded) < self._objective.max_generation_batches:
            count, last = len(drawn.graded), drawn.graded[-1]
            batch = self._generate.padded(draw_batch(last.indices.tolist(), last.pass_rates))
            fresh = self._generate(state, batch, number=count)
            graded = all_rows(self._mesh, self._grade(batch, fresh.completions))
            fresh_zero_spread = graded.zero_spread(spread)
            places = refill(zero_spread, fresh_zero_spread)
            zero_spread = np.concatenate([zero_spread, fresh_zero_spread])[places]
            drawn = DrawnBatches(
                graded=[*drawn.graded, graded],
                rows=np.concatenate([drawn.rows, np.arange(size) + count * size])[places],
                rows_decoded=[*drawn.rows_decoded, fresh.completions.rows_decoded],
            )
            if (places >= size).any():
                on_devices = put_on_mesh(self._mesh, jax.device_put(places))
                rollout = take(rollout, fresh.rows_only(), on_devices, self._processor.pad_id)
        return rollout, drawn

    def _with_rewards(
        self, metrics: dict[str, float], state: TrainState, drawn: DrawnBatches
    ) -> dict[str, float]:
        """The means of the rewards, the update's metrics, and those of all drawn groups."""
        metrics |= grpo_metrics(self._run.grpo, self._config, self._mesh, state.params, drawn)
        means = reward_means(drawn)
        assert not means.keys() & metrics.keys(), means.keys() & metrics.keys()
        return means | metrics

    def _samples(self, drawn: DrawnBatches, rollout: Rollout) -> list[Sample]:
        """The groups that the step learned from, with every completion's rewards and advantage."""
        arrays = (rollout.completions.tokens, rollout.advantages)
        tokens, advantages = fetch_global(self._mesh, arrays)
        indices = drawn.of_kept_rows(lambda batch: batch.indices)
        lengths = drawn.of_kept_rows(lambda batch: batch.lengths)
        done = drawn.of_kept_rows(lambda batch: batch.done)
        # One order on any number of hosts; rewards that hosts exchange come back sorted by name.
        names = sorted(drawn.graded[0].rewards, key=lambda name: (name == "total", name))
        rewards = {
            name: drawn.of_kept_rows(lambda batch, name=name: batch.rewards[name]) for name in names
        }
        samples = []
        for row, index in enumerate(indices.tolist()):
            texts = self._processor.texts(tokens[row], lengths[row])
            scores = [
                {name: float(rewards[name][row, place]) for name in names}
                for place in range(len(texts))
            ]
            completions = described(texts, lengths[row], done[row], scores, advantages[row])
            samples.append(Sample(index, completions))
        return samples


@functools.partial(jax.jit, static_argnames="objective")
def compute_advantages(
    rewards: Float[Array, "B G"],
    mask: Bool[Array, "B G T"],
    old: Float[Array, "B G T"] | None = None,
    reference: Float[Array, "B G T"] | None = None,
    unmoved: Bool[Array, ""] | None = None,
    *,
    objective: Objective,
) -> Float[Array, "B G"]:
    """Computes the advantages from total rewards, less the KL where the objective has it in the reward.

    Args:
        mask: the completions' tokens.
        old, reference, unmoved: see `Rollout`.
    """
    if reference is not None and objective.kl in IN_REWARD:
        if unmoved is not None:  # otherwise rounding errors would become advantages
            reference = jnp.where(unmoved, old, reference)
        rewards = penalised(rewards, old, reference, mask, objective.kl_coefficient)
    return ADVANTAGES[objective.advantages](rewards)
