"""Rewards by length in tokens, as shares of the limit: what is short enough, and what comes too near the limit."""

import math

from sari_jax.data.records import Record
from sari_jax.data.styles import Style
from sari_jax.rl.rewards.answer import accuracy_reward
from sari_jax.rl.rewards.completion import Completion

# At no tokens and at the limit. Ours; Yeo et al. set them by experiment.
RIGHT, WRONG, CUT_OFF = (1.0, 0.5), (-1.0, -0.5), -1.0
# DAPO's 4,096 of 20,480 tokens.
CACHE = 1 / 5


def length_reward(completion: Completion, record: Record, style: Style) -> float:
    """Along a cosine: a right answer is worth less the longer it is, a wrong one costs less the longer was thought.

    What reaches the limit costs the most, right or wrong. (Yeo et al. 2025, "Demystifying Long Chain-of-Thought
    Reasoning in LLMs", the cosine reward.)
    """
    if completion.tokens >= completion.limit:
        return CUT_OFF
    first, last = RIGHT if accuracy_reward(completion, record, style) else WRONG
    share = completion.tokens / completion.limit
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def overlong_reward(completion: Completion, record: Record, style: Style) -> float:
    """0 up to four fifths of the limit, from there on a straight line down to -1 at the limit.

    The soft overlong punishment of DAPO (Yu et al. 2025, equation 13).
    """
    cache = CACHE * completion.limit
    over = max(completion.tokens - (completion.limit - cache), 0.0)
    return 0.0 - min(over / cache, 1.0)
