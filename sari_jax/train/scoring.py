"""Old and reference log-probabilities, which an update compares its own with."""

import jax
from jaxtyping import Array, Float

from sari_jax.models.audio_lm import Params
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.lora import without_adapter
from sari_jax.rl.policy import reference_logprobs
from sari_jax.train.config import Grpo
from sari_jax.train.optimizer import Flat, merge
from sari_jax.train.reference import is_reference, on_device
from sari_jax.train.state import TrainState
from sari_jax.train.updates import Rollout


class LogprobScorer:
    """Adds log-probabilities to rollouts, as far as the objective needs them."""

    def __init__(self, settings: Grpo, config: AudioLMConfig, *, frozen: Flat, reference: Flat):
        self._settings, self._config = settings, config
        self._frozen, self._reference = frozen, reference

    def __call__(self, state: TrainState, rollout: Rollout) -> Rollout:
        """Adds the old log-probabilities and those under the reference."""
        rollout = self.with_old(state, rollout)
        if not self._settings.uses_reference:
            return rollout
        # The copy of a reference that is kept in host memory is freed again when this returns.
        reference = on_device(self._reference)
        params = merge(reference, self._frozen)
        return rollout._replace(
            reference=self._logprobs(without_adapter(self._config), params, rollout),
            unmoved=is_reference(reference, state.params),
        )

    def with_old(self, state: TrainState, rollout: Rollout) -> Rollout:
        """Adds the old log-probabilities. Call it with the policy that sampled, before an update donates it."""
        if not self._settings.needs_old_logprobs or rollout.old is not None:
            return rollout
        params = merge(state.params, self._frozen)
        return rollout._replace(old=self._logprobs(self._config, params, rollout))

    def wait(self, rollout: Rollout) -> None:
        """Waits until the old and the reference log-probabilities are computed."""
        jax.block_until_ready((rollout.reference, rollout.old))

    def _logprobs(
        self, config: AudioLMConfig, params: Params, rollout: Rollout
    ) -> Float[Array, "B G T"]:
        return reference_logprobs(
            config,
            params,
            rollout.prompts,
            rollout.completions.tokens,
            rollout.features,
            temperature=self._settings.temperature,
        )
