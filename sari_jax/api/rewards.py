"""Rewards to use alone: `sari.rewards`. Each is called as reward(completion, record, style)."""

from sari_jax.data.styles import STYLES
from sari_jax.rl.rewards.answer import accuracy_reward, format_reward
from sari_jax.rl.rewards.chain import consistency_reward, sections_reward
from sari_jax.rl.rewards.completion import Completion
from sari_jax.rl.rewards.length import length_reward, overlong_reward
from sari_jax.rl.rewards.registry import REWARDS, make_scorer

__all__ = [
    "REWARDS",
    "STYLES",
    "Completion",
    "accuracy_reward",
    "consistency_reward",
    "format_reward",
    "length_reward",
    "make_scorer",
    "overlong_reward",
    "sections_reward",
]
