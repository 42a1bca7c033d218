"""Losses to use alone: `sari.losses`.

`grpo_loss` takes arrays. `sft_loss` takes an `AudioLM` with its parameters and its `Prompts`, both of
`sari_jax.models.audio_lm`.
"""

from sari_jax.rl.loss import grpo_loss
from sari_jax.rl.objectives import OBJECTIVES, Objective
from sari_jax.sft.loss import sft_loss

__all__ = ["OBJECTIVES", "Objective", "grpo_loss", "sft_loss"]
