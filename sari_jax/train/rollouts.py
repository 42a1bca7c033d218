"""Completions of a policy in training, for the update, for samples and for held-out questions."""

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sari_jax.generate.layout import DecodingPolicy
from sari_jax.generate.rollout import Completions, encode, rollout
from sari_jax.generate.sampling import Sampler
from sari_jax.models.audio_lm import Prompts
from sari_jax.models.config import AudioLMConfig
from sari_jax.parallel.mesh import decoding_mesh, reshard, spec
from sari_jax.train.config import Run
from sari_jax.train.optimizer import Flat, merge
from sari_jax.train.state import TrainState


class Rollouts:
    """Samples in the layout of decoding, and gives completions in that of training.

    The policy is laid out once for all tokens of a rollout; between layouts it exists twice.
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
        flat = {**self._frozen, **state.params}
        if features is None:
            features = encode(self._config, merge(flat, {}), prompts)
        policy, rows = self._policy(flat), NamedSharding(self._decoding, spec("batch"))
        prompts, seeds, features = reshard((prompts, seeds, features), rows)
        key = reshard(key, NamedSharding(self._decoding, P()))
        with jax.set_mesh(self._decoding):
            done = rollout(self._config, sampler, policy, prompts, seeds, key, features)
        here = NamedSharding(self._mesh, spec("batch"))
        counted = reshard(done.rows_decoded, NamedSharding(self._mesh, P()))
        return reshard(done.replace(rows_decoded=None), here).replace(rows_decoded=counted)
