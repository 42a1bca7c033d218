"""What a step of GRPO does around its jitted update: decode, judge, fill up, compare, learn."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from sari_jax.data.processor import Batch, Processor
from sari_jax.data.styles import style
from sari_jax.generate.rollout import Completions
from sari_jax.generate.sampling import Sampler
from sari_jax.models.audio_lm import Params, Prompts
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.lora import without_adapter
from sari_jax.parallel.mesh import (
    all_rows,
    local_row_indices,
    local_rows,
    onto_mesh,
    shard_batch,
    whole,
)
from sari_jax.rl.advantages import ADVANTAGES, zero_spread
from sari_jax.rl.groups import refill, take
from sari_jax.rl.kl import IN_REWARD, penalised
from sari_jax.rl.policy import reference_logprobs
from sari_jax.rl.rewards.completion import Completion
from sari_jax.rl.rewards.registry import Scorer
from sari_jax.train.config import Grpo, Run
from sari_jax.train.optimizer import Flat, merge
from sari_jax.train.reference import is_reference, on_device
from sari_jax.train.rollouts import Rollouts
from sari_jax.train.samples import Sample, described
from sari_jax.train.stages import (
    Another,
    Stage,
    Stopwatch,
    Updated,
    make_features,
    make_work,
    on_host,
)
from sari_jax.train.state import TrainState
from sari_jax.train.steps import Rollout, counted_apart, make_grpo_step


class Answers(NamedTuple):
    """What a batch was answered, on the host: this process's rows, or those of all processes.

    Attributes:
        samples, prompts: of each row, its clips' samples [B, A] and its prompt's tokens [B].
        lengths, done: of each completion [B, G].
        numbers: the records' [B].
        rewards: [B, G] by name, `accuracy` and `total` among them.
    """

    samples: np.ndarray
    prompts: np.ndarray
    lengths: np.ndarray
    done: np.ndarray
    numbers: np.ndarray
    rewards: dict[str, np.ndarray]

    def flat(self, reward: str) -> np.ndarray:
        """[B] whether this reward is the same for all of a group."""
        return zero_spread(self.rewards[reward])

    @property
    def pass_rates(self) -> list[float]:
        return self.rewards["accuracy"].mean(1, dtype=np.float64).tolist()


class Drawn(NamedTuple):
    """All batches that a step drew.

    Attributes:
        answers: of each, all processes' rows.
        rows: [B] which of all their rows, counted from the first batch on, the step learns from.
        rows_decoded: rows decoded, of each.
    """

    answers: list[Answers]
    rows: np.ndarray
    rows_decoded: list[jax.Array]


def make_grpo(
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
    """The steps of GRPO and its relatives, as the loop calls them.

    Args:
        frozen: parameters that do not learn.
        reference: what the policy's learning parameters were before step 1; empty where the objective has no KL.
        score: a completion's rewards by name.
    """
    sampling = _Sampling(run, config, processor, mesh, frozen, rollouts)
    compared = _Compared(run.grpo, config, frozen, reference)
    judge = make_judge(run, processor, mesh, score)
    step = make_grpo_step(config, run.grpo, optimizer, run.micro_batches)
    tell = make_show(processor, mesh), make_measure(run, config, mesh)
    steps = _Steps(run, mesh, frozen, sampling, compared, judge, step, *tell)
    return Stage(steps.update, steps.saved, steps.take_up)


class _Sampling:
    """Batches to rollouts: what the policy samples of them, by keys that step and draw decide."""

    def __init__(
        self,
        run: Run,
        config: AudioLMConfig,
        processor: Processor,
        mesh: Mesh,
        frozen: Flat,
        rollouts: Rollouts,
    ):
        settings = run.grpo
        self._shapes, self._mesh, self._rollouts = run.data.shapes, mesh, rollouts
        self._features_of = make_features(run, config, mesh, frozen)
        self._sampler = Sampler(
            num_completions=settings.num_completions,
            max_tokens=settings.max_tokens,
            end_ids=processor.end_ids,
            pad_id=processor.pad_id,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
        )
        self.pad_id = processor.pad_id
        self._root = onto_mesh(mesh, jax.random.key(run.seed))
        self._fold, self._after = jax.jit(jax.random.fold_in), jax.jit(lambda step: step + 1)

    def alike(self, batch: Batch) -> Batch:
        """The batch in the shapes of all hosts. They wait for each other here, while no device works."""
        return batch.parts(1, self._shapes)[0]

    def key(self, state: TrainState, *, ahead: bool = False, draw: int = 0) -> jax.Array:
        """The key of a step's batch, of the next step's if it is `ahead`; of its further batches by their number."""
        key = self._fold(self._root, self._after(state.step) if ahead else state.step)
        if not draw:
            return key
        return self._fold(key, onto_mesh(self._mesh, jax.device_put(np.int32(draw))))

    def read(self, state: TrainState, batch: Batch) -> tuple[Prompts, jax.Array | None]:
        """The prompts on their devices, and what the tower hears in them if it does not learn."""
        prompts = shard_batch(self._mesh, batch.prompts)
        return prompts, self._features_of(state, batch, prompts)

    def decode(self, state: TrainState, batch: Batch, key: jax.Array) -> Rollout:
        prompts, features = self.read(state, batch)
        seeds = shard_batch(self._mesh, batch.draws)
        done = self._rollouts(self._sampler, state, prompts, seeds, key, features)
        return Rollout(prompts, done, features)


class _Compared:
    """Rollouts with the log-probabilities that an update compares its own with."""

    def __init__(self, settings: Grpo, config: AudioLMConfig, frozen: Flat, reference: Flat):
        self._settings, self._config = settings, config
        self._frozen, self._reference = frozen, reference

    def _scores(
        self, config: AudioLMConfig, params: Params, rollout: Rollout
    ) -> Float[Array, "B G T"]:
        given = rollout.prompts, rollout.completions.tokens, rollout.features
        return reference_logprobs(config, params, *given, temperature=self._settings.temperature)

    def with_old(self, state: TrainState, rollout: Rollout) -> Rollout:
        """With the old log-probabilities, by the policy that sampled: the next update donates it."""
        if not self._settings.needs_old_logprobs or rollout.old is not None:
            return rollout
        params = merge(state.params, self._frozen)
        return rollout._replace(old=self._scores(self._config, params, rollout))

    def with_all(self, state: TrainState, rollout: Rollout) -> Rollout:
        """With the old ones and the reference's, as far as the objective has them."""
        rollout = self.with_old(state, rollout)
        if not self._settings.uses_reference:
            return rollout
        # A reference that waits with the host is held here no longer than the host takes to read the text.
        kept = on_device(self._reference)
        scores = self._scores(without_adapter(self._config), merge(kept, self._frozen), rollout)
        return rollout._replace(reference=scores, unmoved=is_reference(kept, state.params))


class _Steps:
    """GRPO's steps, and the batch that is decoded ahead of one."""

    def __init__(
        self,
        run: Run,
        mesh: Mesh,
        frozen: Flat,
        sampling: _Sampling,
        compared: _Compared,
        judge: Callable[[Batch, Completions], Answers],
        step: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
        show: Callable[..., list[Sample]],
        measure: Callable[..., dict[str, float]],
    ):
        self._mesh, self._frozen, self._rows = mesh, frozen, run.batch_size
        self._sampling, self._compared = sampling, compared
        self._judge, self._step, self._show, self._measure = judge, step, show, measure
        self._advantages_of = make_advantages(run.grpo)
        objective = run.grpo.resolved_objective
        self._tries, self._spread = objective.max_generation_batches, objective.spread
        self._updates = run.grpo.updates_per_rollout
        self._under_way: list[Rollout] = []

    def update(
        self,
        state: TrainState,
        batch: Batch,
        sampled: bool,
        ahead: Batch | None,
        another: Another,
    ) -> Updated:
        """One step; see `Stage`."""
        sampling, mesh = self._sampling, self._mesh
        watch, behind = Stopwatch(), len(self._under_way) * self._updates
        batch, ahead = sampling.alike(batch), ahead and sampling.alike(ahead)
        if self._under_way:
            rollout = self._under_way.pop()
        else:
            rollout = sampling.decode(state, batch, sampling.key(state))
        completions = rollout.completions
        watch.lap("rollout", completions)

        if self._tries == 1:  # dispatched before the host reads the text, so that the two overlap
            rollout = self._compared.with_all(state, rollout)
        if ahead is not None:
            fresh = sampling.decode(state, ahead, sampling.key(state, ahead=True))
            self._under_way.append(self._compared.with_old(state, fresh))
        answers = self._judge(batch, completions)
        watch.lap("reward")
        if self._tries == 1:
            rewards = answers.rewards["total"]
        else:
            rollout, drawn = self._filled(state, rollout, all_rows(mesh, answers), another)
            totals = np.concatenate([answers.rewards["total"] for answers in drawn.answers])
            rewards = totals[drawn.rows][local_row_indices(mesh, self._rows)]
            watch.lap("refill")
            rollout = self._compared.with_all(state, rollout)
        state, advantages, metrics = self._learnt(state, rollout, rewards, watch)
        if self._tries == 1:
            # Not before: what is exchanged would wait for the batch that is decoded ahead.
            rows = np.arange(self._rows)
            drawn = Drawn([all_rows(mesh, answers)], rows, [completions.rows_decoded])
        told = on_host(metrics) | {"updates_behind": float(behind)} | self._measure(state, drawn)
        return Updated(
            state,
            named_apart(told, drawn) | watch.seconds,
            self._show(drawn, rollout.completions, advantages) if sampled else [],
            [number for answers in drawn.answers for number in answers.numbers.tolist()],
            [rate for answers in drawn.answers for rate in answers.pass_rates],
        )

    def _learnt(
        self, state: TrainState, rollout: Rollout, rewards: np.ndarray, watch: Stopwatch
    ) -> tuple[TrainState, Float[Array, "B G"], dict[str, jax.Array]]:
        """(the state after the update, the advantages, the update's metrics)"""
        rewards = shard_batch(self._mesh, rewards)
        jax.block_until_ready((rollout.reference, rollout.old))
        watch.lap("reference")
        compared = rollout.old, rollout.reference, rollout.unmoved
        advantages = self._advantages_of(rewards, rollout.completions, *compared)
        state, metrics = self._step(state, self._frozen, rollout._replace(advantages=advantages))
        watch.lap("update", metrics)
        return state, advantages, metrics

    def _filled(
        self, state: TrainState, rollout: Rollout, answers: Answers, another: Another
    ) -> tuple[Rollout, Drawn]:
        """Draws further batches until every group has spread, or `tries` in all: see `rl.groups`."""
        flat = answers.flat(self._spread)
        size, places = len(flat), np.arange(len(flat))
        drawn = Drawn([answers], places, [rollout.completions.rows_decoded])
        rollout, sampling = counted_apart(rollout), self._sampling
        while flat.any() and len(drawn.answers) < self._tries:
            count = len(drawn.answers)
            batch = sampling.alike(another(answers.numbers.tolist(), answers.pass_rates))
            fresh = sampling.decode(state, batch, sampling.key(state, draw=count))
            answers = all_rows(self._mesh, self._judge(batch, fresh.completions))
            fresh_flat = answers.flat(self._spread)
            places = refill(flat, fresh_flat)
            rows = np.concatenate([drawn.rows, np.arange(size) + count * size])[places]
            flat = np.concatenate([flat, fresh_flat])[places]
            rows_decoded = [*drawn.rows_decoded, fresh.completions.rows_decoded]
            drawn = Drawn([*drawn.answers, answers], rows, rows_decoded)
            if (places >= size).any():
                where = onto_mesh(self._mesh, jax.device_put(places))
                rollout = take(rollout, counted_apart(fresh), where, sampling.pad_id)
        return rollout, drawn

    def saved(self) -> dict[str, np.ndarray] | None:
        """The completions that are decoded ahead, for a checkpoint; None where there are none."""
        if not self._under_way:
            return None
        (rollout,) = self._under_way
        old = {} if rollout.old is None else {"old": whole(self._mesh, rollout.old)}
        return {**vars(whole(self._mesh, rollout.completions)), **old}

    def take_up(self, state: TrainState, batch: Batch, arrays: dict[str, np.ndarray]) -> None:
        """Puts there again what `saved` gave; `batch` is theirs."""
        mine = local_row_indices(self._mesh, self._rows)
        per_row = {name: array[mine] for name, array in arrays.items() if np.ndim(array)}
        others = {name: array for name, array in arrays.items() if not np.ndim(array)}
        placed = shard_batch(self._mesh, per_row) | onto_mesh(self._mesh, jax.device_put(others))
        old = placed.pop("old", None)
        prompts, features = self._sampling.read(state, self._sampling.alike(batch))
        self._under_way.append(Rollout(prompts, Completions(**placed), features, old=old))


def make_judge(
    run: Run, processor: Processor, mesh: Mesh, score: Scorer
) -> Callable[[Batch, Completions], Answers]:
    """(batch, its completions) -> this process's answers."""
    settings, answer_style = run.grpo, style(run.data.style)

    def judge(batch: Batch, completions: Completions) -> Answers:
        tokens, lengths, done = local_rows(
            mesh, (completions.tokens, completions.lengths, completions.done)
        )
        texts = processor.texts(tokens.reshape(-1, tokens.shape[-1]), lengths.reshape(-1))
        records = [record for record in batch.records for _ in range(settings.num_completions)]
        scores = [
            score(Completion(text, int(length), settings.max_tokens), record, answer_style)
            for text, length, record in zip(texts, lengths.flat, records, strict=True)
        ]
        rewards = {
            name: np.array([row[name] for row in scores], np.float32).reshape(lengths.shape)
            for name in scores[0]
        }
        prompts = batch.prompts
        return Answers(prompts.samples, prompts.lengths, lengths, done, batch.indices, rewards)

    return judge


def make_show(
    processor: Processor, mesh: Mesh
) -> Callable[[Drawn, Completions, Float[Array, "B G"]], list[Sample]]:
    """(drawn, the completions that the step learns from, their advantages) -> what people read of them."""

    def show(
        drawn: Drawn, completions: Completions, advantages: Float[Array, "B G"]
    ) -> list[Sample]:
        def learnt(of: Callable[[Answers], np.ndarray]) -> np.ndarray:
            return np.concatenate([of(answers) for answers in drawn.answers])[drawn.rows]

        numbers, lengths = learnt(lambda a: a.numbers), learnt(lambda a: a.lengths)
        done = learnt(lambda a: a.done)
        # In one order on however many hosts: what these exchange comes sorted.
        names = sorted(drawn.answers[0].rewards, key=lambda name: (name == "total", name))
        rewards = np.stack([learnt(lambda a, name=name: a.rewards[name]) for name in names], -1)
        tokens, gains = whole(mesh, (completions.tokens, advantages))
        samples = []
        for row, number in enumerate(numbers.tolist()):
            texts = processor.texts(tokens[row], lengths[row])
            scores = [dict(zip(names, values.tolist(), strict=True)) for values in rewards[row]]
            each = described(texts, lengths[row], done[row], scores, gains[row])
            samples.append(Sample(number, each))
        return samples

    return show


def make_advantages(settings: Grpo) -> Callable[..., Float[Array, "B G"]]:
    """(rewards, completions, old, reference, unmoved) -> advantages; the last three are of `Rollout`."""
    formula = settings.resolved_objective

    @jax.jit
    def advantages(
        rewards: Float[Array, "B G"],
        completions: Completions,
        old: Float[Array, "B G T"] | None,
        reference: Float[Array, "B G T"] | None,
        unmoved: Bool[Array, ""] | None = None,
    ) -> Float[Array, "B G"]:
        if reference is not None and formula.kl in IN_REWARD:
            if unmoved is not None:  # a deviation of rounding errors would make advantages of them
                reference = jnp.where(unmoved, old, reference)
            rewards = penalised(rewards, old, reference, completions.mask, formula.kl_coefficient)
        return ADVANTAGES[formula.advantages](rewards)

    return advantages


def make_measure(
    run: Run, config: AudioLMConfig, mesh: Mesh
) -> Callable[[TrainState, Drawn], dict[str, float]]:
    """(state, drawn) -> what was asked and answered, over all groups that were drawn, and the step's work."""
    settings, spread = run.grpo, run.grpo.resolved_objective.spread
    # Sampling, the reference, the old log-probabilities, and the updates.
    passes = (
        1 + settings.uses_reference + settings.needs_old_logprobs + settings.updates_per_rollout
    )
    learning = make_work(config, passes=passes, updates=settings.updates_per_rollout)
    sampling = make_work(config, passes=1, updates=0)

    def work(state: TrainState, drawn: Drawn) -> dict[str, float]:
        total: dict[str, float] = {}
        size = len(drawn.rows)
        for count, answers in enumerate(drawn.answers):
            learnt = np.isin(np.arange(size) + count * size, drawn.rows)
            for work_of, rows in ((learning, learnt), (sampling, ~learnt)):
                if rows.any():
                    arrays = answers.samples[rows], answers.prompts[rows], answers.lengths[rows]
                    for name, value in work_of(state, *arrays).items():
                        total[name] = total.get(name, 0) + value
        return total

    def measure(state: TrainState, drawn: Drawn) -> dict[str, float]:
        flat, lengths, done = (
            np.concatenate([of(answers) for answers in drawn.answers])
            for of in (lambda a: a.flat(spread), lambda a: a.lengths, lambda a: a.done)
        )
        rows_decoded = sum(whole(mesh, drawn.rows_decoded))
        found = {
            "zero_spread": float(flat.mean()),
            "completion_tokens": float(lengths.mean()),
            "done_fraction": float(done.mean()),
            "idle_fraction": float(1 - lengths.sum() / rows_decoded),
        }
        if settings.resolved_objective.max_generation_batches > 1:
            found["generation_batches"] = float(len(drawn.answers))
            found["zero_spread_left"] = float(flat[drawn.rows].mean())
        return found | work(state, drawn)

    return measure


def named_apart(told: dict[str, float], drawn: Drawn) -> dict[str, float]:
    """The mean of each reward by its name, `reward` for the total, before the other metrics: `RESERVED` holds these."""
    rewards = [answers.rewards for answers in drawn.answers]
    means = {
        "reward" if name == "total" else name: float(
            np.concatenate([row[name] for row in rewards]).mean(dtype=np.float64)
        )
        for name in rewards[0]
    }
    assert not means.keys() & told.keys(), means.keys() & told.keys()
    return {"reward": means.pop("reward"), **means, **told}
