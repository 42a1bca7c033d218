"""A step of supervised fine-tuning: the answers' likelihood goes up; sometimes a few greedy completions are shown."""

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from sari_jax.data.processor import Batch, Processor
from sari_jax.data.styles import style
from sari_jax.generate.sampling import Sampler
from sari_jax.models.config import AudioLMConfig
from sari_jax.parallel.mesh import all_rows, local_rows, put_on_mesh, shard_batch
from sari_jax.rl.rewards.completion import Completion
from sari_jax.rl.rewards.registry import Scorer
from sari_jax.train.config import Run
from sari_jax.train.features import TowerFeatures
from sari_jax.train.optimizer import Flat
from sari_jax.train.rollouts import Rollouts
from sari_jax.train.samples import Sample, described
from sari_jax.train.stages import DrawBatch, StepResult, Stopwatch, to_host
from sari_jax.train.state import TrainState
from sari_jax.train.step_metrics import step_work
from sari_jax.train.updates import SftPart, sft_update

SHOWN = 4  # prompts of a batch whose greedy completions are shown


class SftStage:
    """The steps of supervised fine-tuning; see `Stage`."""

    def __init__(
        self,
        run: Run,
        config: AudioLMConfig,
        processor: Processor,
        mesh: Mesh,
        *,
        optimizer: optax.GradientTransformation,
        frozen: Flat,
        rollouts: Rollouts,
        compute_rewards: Scorer,
    ):
        self._run, self._config, self._mesh = run, config, mesh
        self._processor, self._compute_rewards = processor, compute_rewards
        self._optimizer, self._frozen, self._rollouts = optimizer, frozen, rollouts
        self._tower = TowerFeatures(config, mesh, run.data.keep_features_gb)
        # Greedy decoding takes a key and does not use it.
        self._key = put_on_mesh(mesh, jax.random.key(run.seed))

    def step(
        self,
        state: TrainState,
        batch: Batch,
        *,
        next_batch: Batch | None,
        draw_batch: DrawBatch,
        sample: bool,
    ) -> StepResult:
        """Makes one step: sample completions if they are asked for, then the update."""
        watch = Stopwatch()
        # All hosts exchange the rows below, so that their shapes must agree.
        (batch,) = batch.parts(1, self._run.data.shapes)
        batches = self._split(batch)
        parts = [self._part(state, each) for each in batches]
        samples: list[Sample] = []
        if sample:
            samples = self._sampled(state, batches[0], parts[0])
            watch.lap("sample")
        state, metrics = sft_update(
            state,
            self._frozen,
            parts,
            config=self._config,
            optimizer=self._optimizer,
            dropout=self._run.model.adapter.dropout,
            seed=self._run.seed,
        )
        watch.lap("update", metrics)
        prompts, answers = batch.prompts, batch.answer_mask.sum(-1)
        rows = (prompts.samples, prompts.lengths, answers, batch.indices)
        *sizes, indices = all_rows(self._mesh, rows)
        work = step_work(self._config, state.params, *sizes, passes=1)
        metrics = {**to_host(metrics), **work, **watch.seconds}
        return StepResult(state, metrics, samples, indices=indices.tolist(), pass_rates=[])

    def prefetched(self) -> dict[str, np.ndarray] | None:
        """None: SFT decodes nothing ahead."""
        return None

    def load_prefetched(
        self, state: TrainState, batch: Batch, arrays: dict[str, np.ndarray]
    ) -> None:
        """Does nothing: SFT decodes nothing ahead."""

    def _split(self, batch: Batch) -> list[Batch]:
        """The micro batches, each with rows of like length."""
        if self._run.micro_batches == 1:
            return [batch]
        return batch.parts(self._run.micro_batches, self._run.data.shapes)

    def _part(self, state: TrainState, batch: Batch) -> SftPart:
        """A micro batch on its devices."""
        arrays = (batch.prompts, batch.answers, batch.answer_mask)
        prompts, answers, mask = shard_batch(self._mesh, arrays)
        features = self._tower.unless_trained(state, self._frozen, batch, prompts)
        return SftPart(prompts, answers, mask, features)

    def _sampled(self, state: TrainState, batch: Batch, part: SftPart) -> list[Sample]:
        """Greedy completions of the first prompts of this host, with their rewards."""
        sampler = Sampler(
            num_completions=1,
            max_tokens=part.answers.shape[-1],
            end_ids=self._processor.end_ids,
            pad_id=self._processor.pad_id,
            temperature=0.0,
        )
        seeds = shard_batch(self._mesh, batch.indices)
        completions = self._rollouts(sampler, state, part.prompts, seeds, self._key, part.features)
        arrays = (completions.tokens, completions.lengths, completions.done)
        tokens, lengths, done = (x[:SHOWN] for x in local_rows(self._mesh, arrays))
        texts = self._processor.texts(tokens[:, 0], lengths[:, 0])
        samples = []
        for row, (text, record) in enumerate(zip(texts, batch.records, strict=False)):
            completion = Completion(text, int(lengths[row, 0]), sampler.max_tokens)
            rewards = self._compute_rewards(completion, record, style(self._run.data.style))
            shown = described([text], lengths[row], done[row], [rewards])
            samples.append(Sample(int(batch.indices[row]), shown))
        return samples
