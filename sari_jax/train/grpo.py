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
from sari_jax.parallel.mesh import all_rows, local_rows, onto_mesh, own_rows, shard_batch, whole
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
        lengths, ended: of each completion [B, G].
        numbers: the records' [B].
        rewards: [B, G] by name, `accuracy` and `total` among them.
    """

    samples: np.ndarray
    prompts: np.ndarray
    lengths: np.ndarray
    ended: np.ndarray
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
        computed: rows decoded, of each.
    """

    answers: list[Answers]
    rows: np.ndarray
    computed: list[jax.Array]


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
    settings = run.grpo
    tries, spread = settings.formula.sampling_tries, settings.formula.spread
    step = make_grpo_step(config, settings, optimizer, run.micro_batches)
    features_of = make_features(run, config, mesh, frozen)
    judge, show = make_judge(run, processor, mesh, score), make_show(processor, mesh)
    advantages_of, measure = make_advantages(settings), make_measure(run, config, mesh)
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
    key_of, after = jax.jit(jax.random.fold_in), jax.jit(lambda step: step + 1)
    under_way: list[Rollout] = []

    def alike(batch: Batch) -> Batch:
        """The batch in the shapes of all hosts. They wait for each other here, while no device works."""
        return batch.parts(1, run.data.shapes)[0]

    def read(state: TrainState, batch: Batch) -> tuple[Prompts, jax.Array | None]:
        prompts = shard_batch(mesh, batch.prompts)
        return prompts, features_of(state, batch, prompts)

    def decode(state: TrainState, batch: Batch, key: jax.Array) -> Rollout:
        prompts, features = read(state, batch)
        seeds = shard_batch(mesh, batch.draws)
        return Rollout(prompts, rollouts(sampler, state, prompts, seeds, key, features), features)

    def scores_of(config: AudioLMConfig, params: Params, rollout: Rollout) -> Float[Array, "B G T"]:
        given = rollout.prompts, rollout.completions.tokens, rollout.features
        return reference_logprobs(config, params, *given, temperature=settings.temperature)

    def rescored(state: TrainState, rollout: Rollout) -> Rollout:
        """With the old log-probabilities, by the policy that sampled: the next update donates it."""
        if not settings.rescores or rollout.old is not None:
            return rollout
        return rollout._replace(old=scores_of(config, merge(state.params, frozen), rollout))

    def scored(state: TrainState, rollout: Rollout) -> Rollout:
        """With all that the update compares with."""
        rollout = rescored(state, rollout)
        if not settings.refers:
            return rollout
        # A reference that waits with the host is held here no longer than the host takes to read the text.
        kept = on_device(reference)
        scores = scores_of(without_adapter(config), merge(kept, frozen), rollout)
        return rollout._replace(reference=scores, unmoved=is_reference(kept, state.params))

    def fill(
        state: TrainState, rollout: Rollout, answers: Answers, another: Another
    ) -> tuple[Rollout, Drawn]:
        """Draws further batches until every group has spread, or `tries` in all: see `rl.groups`."""
        flat = answers.flat(spread)
        size, places = len(flat), np.arange(len(flat))
        drawn = Drawn([answers], places, [rollout.completions.computed])
        rollout, key = counted_apart(rollout), key_of(root, state.step)
        while flat.any() and len(drawn.answers) < tries:
            count = len(drawn.answers)
            batch = alike(another(answers.numbers.tolist(), answers.pass_rates))
            number = onto_mesh(mesh, jax.device_put(np.int32(count)))
            fresh = decode(state, batch, key_of(key, number))
            answers = all_rows(mesh, judge(batch, fresh.completions))
            fresh_flat = answers.flat(spread)
            places = refill(flat, fresh_flat)
            rows = np.concatenate([drawn.rows, np.arange(size) + count * size])[places]
            flat = np.concatenate([flat, fresh_flat])[places]
            computed = [*drawn.computed, fresh.completions.computed]
            drawn = Drawn([*drawn.answers, answers], rows, computed)
            if (places >= size).any():
                where = onto_mesh(mesh, jax.device_put(places))
                rollout = take(rollout, counted_apart(fresh), where, processor.pad_id)
        return rollout, drawn

    def grpo(
        state: TrainState, batch: Batch, sampled: bool, ahead: Batch | None, another: Another
    ) -> Updated:
        watch, behind = Stopwatch(), len(under_way) * settings.updates_per_rollout
        batch, ahead = alike(batch), ahead and alike(ahead)
        rollout = under_way.pop() if under_way else decode(state, batch, key_of(root, state.step))
        completions = rollout.completions
        watch.lap("rollout", completions)

        if tries == 1:  # dispatched before the host reads the text, so that the two overlap
            rollout = scored(state, rollout)
        if ahead is not None:
            key = key_of(root, after(state.step))
            under_way.append(rescored(state, decode(state, ahead, key)))
        answers = judge(batch, completions)
        watch.lap("reward")
        if tries == 1:
            rewards = answers.rewards["total"]
        else:
            rollout, drawn = fill(state, rollout, all_rows(mesh, answers), another)
            totals = np.concatenate([answers.rewards["total"] for answers in drawn.answers])
            rewards = totals[drawn.rows][own_rows(mesh, run.batch_size)]
            watch.lap("refill")
            rollout = scored(state, rollout)
        rewards = shard_batch(mesh, rewards)
        jax.block_until_ready((rollout.reference, rollout.old))
        watch.lap("reference")

        compared = rollout.old, rollout.reference, rollout.unmoved
        advantages = advantages_of(rewards, rollout.completions, *compared)
        state, metrics = step(state, frozen, rollout._replace(advantages=advantages))
        watch.lap("update", metrics)
        if tries == 1:
            # Not before: what is exchanged would wait for the batch that is decoded ahead.
            rows = np.arange(run.batch_size)
            drawn = Drawn([all_rows(mesh, answers)], rows, [completions.computed])
        told = on_host(metrics) | {"updates_behind": float(behind)} | measure(state, drawn)
        return Updated(
            state,
            named_apart(told, drawn) | watch.seconds,
            show(drawn, rollout.completions, advantages) if sampled else [],
            [number for answers in drawn.answers for number in answers.numbers.tolist()],
            [rate for answers in drawn.answers for rate in answers.pass_rates],
        )

    def saved() -> dict[str, np.ndarray] | None:
        if not under_way:
            return None
        old = {} if under_way[0].old is None else {"old": whole(mesh, under_way[0].old)}
        return {**vars(whole(mesh, under_way[0].completions)), **old}

    def take_up(state: TrainState, batch: Batch, arrays: dict[str, np.ndarray]) -> None:
        mine = own_rows(mesh, run.batch_size)
        per_row = {name: array[mine] for name, array in arrays.items() if np.ndim(array)}
        others = {name: array for name, array in arrays.items() if not np.ndim(array)}
        placed = shard_batch(mesh, per_row) | onto_mesh(mesh, jax.device_put(others))
        old = placed.pop("old", None)
        prompts, features = read(state, alike(batch))
        under_way.append(Rollout(prompts, Completions(**placed), features, old=old))

    return Stage(grpo, saved, take_up)


def make_judge(
    run: Run, processor: Processor, mesh: Mesh, score: Scorer
) -> Callable[[Batch, Completions], Answers]:
    """(batch, its completions) -> this process's answers."""
    settings, answer_style = run.grpo, style(run.data.style)

    def judge(batch: Batch, completions: Completions) -> Answers:
        tokens, lengths, ended = local_rows(
            mesh, (completions.tokens, completions.lengths, completions.ended)
        )
        texts = processor.texts(tokens.reshape(-1, tokens.shape[-1]), lengths.reshape(-1))
        records = [record for record in batch.records for _ in range(settings.completions)]
        scores = [
            score(Completion(text, int(length), settings.max_tokens), record, answer_style)
            for text, length, record in zip(texts, lengths.flat, records, strict=True)
        ]
        rewards = {
            name: np.array([row[name] for row in scores], np.float32).reshape(lengths.shape)
            for name in scores[0]
        }
        prompts = batch.prompts
        return Answers(prompts.samples, prompts.lengths, lengths, ended, batch.seeds, rewards)

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
        ended = learnt(lambda a: a.ended)
        # In one order on however many hosts: what these exchange comes sorted.
        names = sorted(drawn.answers[0].rewards, key=lambda name: (name == "total", name))
        rewards = np.stack([learnt(lambda a, name=name: a.rewards[name]) for name in names], -1)
        tokens, gains = whole(mesh, (completions.tokens, advantages))
        samples = []
        for row, number in enumerate(numbers.tolist()):
            texts = processor.texts(tokens[row], lengths[row])
            scores = [dict(zip(names, values.tolist(), strict=True)) for values in rewards[row]]
            each = described(texts, lengths[row], ended[row], scores, gains[row])
            samples.append(Sample(number, each))
        return samples

    return show


def make_advantages(settings: Grpo) -> Callable[..., Float[Array, "B G"]]:
    """(rewards, completions, old, reference, unmoved) -> advantages; the last three are of `Rollout`."""
    formula = settings.formula

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
    settings, spread = run.grpo, run.grpo.formula.spread
    # Sampling, the reference, the old log-probabilities, and the updates.
    passes = 1 + settings.refers + settings.rescores + settings.updates_per_rollout
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
        flat, lengths, ended = (
            np.concatenate([of(answers) for answers in drawn.answers])
            for of in (lambda a: a.flat(spread), lambda a: a.lengths, lambda a: a.ended)
        )
        computed = sum(whole(mesh, drawn.computed))
        found = {
            "zero_spread": float(flat.mean()),
            "completion_tokens": float(lengths.mean()),
            "ended": float(ended.mean()),
            "rows_idle": float(1 - lengths.sum() / computed),
        }
        if settings.formula.sampling_tries > 1:
            found["tries"] = float(len(drawn.answers))
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
