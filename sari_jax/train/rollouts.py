"""Completions of the policy in training: for updates, for samples and for held-out questions."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sari_jax.data.processor import Batch, Processor
from sari_jax.generate.layout import DecodingPolicy
from sari_jax.generate.rollout import Completions, encode, rollout
from sari_jax.generate.sampling import Sampler
from sari_jax.models.audio_lm import Prompts
from sari_jax.models.config import AudioLMConfig
from sari_jax.parallel.mesh import decoding_mesh, put_on_mesh, reshard, shard_batch, spec
from sari_jax.train.config import Run
from sari_jax.train.features import TowerFeatures
from sari_jax.train.optimizer import Flat, merge
from sari_jax.train.state import TrainState
from sari_jax.train.updates import Rollout


class Rollouts:
    """Samples in the layout of decoding, and returns completions in the layout of training.

    The policy is laid out once for all tokens of a rollout. Both copies are in memory meanwhile.
    """

    def __init__(self, run: Run, config: AudioLMConfig, mesh: Mesh, frozen: Flat):
        self._config, self._mesh, self._frozen = config, mesh, frozen
        self._decoding = decoding_mesh(mesh, run.mesh.decode_tensor or mesh.shape["tensor"])
        self._policy = DecodingPolicy(config, self._decoding)

    def __call__(
        self,
        sampler: Sampler,
        state: TrainState,
        prompts: Prompts,
        seeds: jax.Array,
        key: jax.Array,
        features: jax.Array | None,
    ) -> Completions:
        """Samples completions of a batch of prompts; see `generate.rollout.rollout`."""
        flat = {**self._frozen, **state.params}
        if features is None:
            features = encode(self._config, merge(flat, {}), prompts)
        policy = self._policy(flat)
        rows = NamedSharding(self._decoding, spec("batch"))
        prompts, seeds, features = reshard((prompts, seeds, features), rows)
        key = reshard(key, NamedSharding(self._decoding, P()))
        with jax.set_mesh(self._decoding):
            completions = rollout(self._config, sampler, policy, prompts, seeds, key, features)
        batch = NamedSharding(self._mesh, spec("batch"))
        rows_decoded = reshard(completions.rows_decoded, NamedSharding(self._mesh, P()))
        return reshard(completions.replace(rows_decoded=None), batch).replace(
            rows_decoded=rows_decoded
        )


class GroupSampler:
    """Samples a group of completions for each prompt of a batch.

    The key of a batch is folded from (seed, step, number of the batch within its step).
    """

    def __init__(
        self,
        run: Run,
        config: AudioLMConfig,
        processor: Processor,
        mesh: Mesh,
        *,
        frozen: Flat,
        rollouts: Rollouts,
    ):
        self._shapes, self._mesh = run.data.shapes, mesh
        self._frozen, self._rollouts = frozen, rollouts
        self._tower = TowerFeatures(config, mesh, run.data.keep_features_gb)
        self._sampler = Sampler(
            num_completions=run.grpo.num_completions,
            max_tokens=run.grpo.max_tokens,
            end_ids=processor.end_ids,
            pad_id=processor.pad_id,
            temperature=run.grpo.temperature,
            top_k=run.grpo.top_k,
            top_p=run.grpo.top_p,
        )
        self._root = put_on_mesh(mesh, jax.random.key(run.seed))

    def padded(self, batch: Batch) -> Batch:
        """Pads a batch to the largest shape on any host. Collective: call it before devices are given work."""
        return batch.parts(1, self._shapes)[0]

    def place(self, state: TrainState, batch: Batch) -> tuple[Prompts, jax.Array | None]:
        """Puts the prompts on their devices, with the tower's output if the tower does not learn."""
        prompts = shard_batch(self._mesh, batch.prompts)
        return prompts, self._tower.unless_trained(state, self._frozen, batch, prompts)

    def __call__(
        self, state: TrainState, batch: Batch, *, next_step: bool = False, number: int = 0
    ) -> Rollout:
        """Samples completions of a padded batch.

        Args:
            next_step: whether the batch belongs to the step after the state's.
            number: the number of the batch within its step; 0 for the first one.
        """
        key = _fold_in(self._root, _after(state.step) if next_step else state.step)
        if number:
            key = _fold_in(key, put_on_mesh(self._mesh, jax.device_put(np.int32(number))))
        prompts, features = self.place(state, batch)
        seeds = shard_batch(self._mesh, batch.sampling_seeds)
        completions = self._rollouts(self._sampler, state, prompts, seeds, key, features)
        return Rollout(prompts, completions, features)


_fold_in = jax.jit(jax.random.fold_in)


@jax.jit
def _after(step: jax.Array) -> jax.Array:
    return step + 1
