"""Losses to use alone: `sari.losses`."""

from sari_jax.rl.loss import grpo_loss
from sari_jax.rl.objectives import OBJECTIVES, Objective
from sari_jax.sft.loss import sft_loss

__all__ = ["OBJECTIVES", "Objective", "grpo_loss", "sft_loss"]
