"""The output of a frozen tower for each clip, computed once per step, or once per run."""

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from sari_jax.data.processor import Batch
from sari_jax.generate.rollout import encode
from sari_jax.models.audio_lm import Params, Prompts
from sari_jax.models.config import AudioLMConfig
from sari_jax.parallel.mesh import shard_batch
from sari_jax.train.optimizer import Flat, merge
from sari_jax.train.state import TrainState


class TowerFeatures:
    """The output of a frozen tower for a batch.

    With `keep_gb` the output stays in host memory, and later epochs do not run the tower. It takes 25 frames a second
    of the tower's width in float32: 38 MB for ten minutes of audio at width 640. When the memory is full, the rest is
    computed every time. A batch is taken from memory only if all of its rows are there.
    """

    def __init__(self, config: AudioLMConfig, mesh: Mesh, keep_gb: float):
        self._config, self._mesh = config, mesh
        # Another process's rows cannot be read here.
        self._room = int(keep_gb * 1e9) if jax.process_count() == 1 else 0
        self._kept: dict[tuple[int, ...], Float[np.ndarray, "A F D"]] = {}

    def unless_trained(
        self, state: TrainState, frozen: Flat, batch: Batch, prompts: Prompts
    ) -> Float[Array, "B A F D"] | None:
        """The output for a batch; None if the tower is trained, since each pass then computes its own."""
        if any(path.startswith("tower/") for path in state.params):
            return None
        return self(merge(state.params, frozen), batch, prompts)

    def __call__(self, params: Params, batch: Batch, prompts: Prompts) -> Float[Array, "B A F D"]:
        clips = batch.prompts.waveforms.shape[1:]
        keys = [(int(number), *clips) for number in batch.indices]
        if all(key in self._kept for key in keys):
            return shard_batch(self._mesh, np.stack([self._kept[key] for key in keys]))
        features = encode(self._config, params, prompts)
        if self._room > 0:
            for key, row in zip(keys, jax.device_get(features), strict=True):
                if key not in self._kept and row.nbytes <= self._room:
                    self._kept[key] = row.copy()
                    self._room -= row.nbytes
        return features
