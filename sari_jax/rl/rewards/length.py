"""Rewards by length in tokens, as shares of the limit."""

import math

from sari_jax.data.records import Record
from sari_jax.data.styles import Style
from sari_jax.rl.rewards.answer import accuracy_reward
from sari_jax.rl.rewards.completion import Completion

# Rewards at no tokens and at the limit. Ours; Yeo et al. set them by experiment.
RIGHT, WRONG, CUT_OFF = (1.0, 0.5), (-1.0, -0.5), -1.0
# The share of the limit over which the penalty grows: DAPO's 4,096 of 20,480 tokens.
CACHE = 1 / 5


def length_reward(completion: Completion, record: Record, style: Style) -> float:
    """Rewards right answers more if they are short, and punishes wrong ones less if they are long.

        reward = last + (first - last) * (1 + cos(pi * num_tokens / limit)) / 2

    A right answer goes from first = 1 to last = 0.5, a wrong one from -1 to -0.5. A completion that reaches the limit
    gets -1, right or wrong.

    >>> from sari_jax.data.records import Clip
    >>> from sari_jax.data.styles import STYLES
    >>> record = Record(
    ...     id="r1", audio=(Clip("dog.wav"),), question="Which animal?", choices=("cat", "dog"),
    ...     answer_index=1, task="sound", source="mine", licence="CC0-1.0",
    ... )
    >>> right, wrong = "<answer>dog</answer>", "<answer>cat</answer>"
    >>> [length_reward(Completion(right, n, 100), record, STYLES["direct"]) for n in (0, 50, 100)]
    [1.0, 0.75, -1.0]
    >>> [length_reward(Completion(wrong, n, 100), record, STYLES["direct"]) for n in (0, 50, 100)]
    [-1.0, -0.75, -1.0]

    Args:
        completion: the text, its number of tokens and their limit.
        record: the question.
        style: the answer style, which finds the answer in the text.

    Returns:
        The reward, from -1 to 1.

    References:
        Yeo et al. 2025, "Demystifying Long Chain-of-Thought Reasoning in LLMs", the cosine reward.
    """
    if completion.num_tokens >= completion.limit:
        return CUT_OFF
    first, last = RIGHT if accuracy_reward(completion, record, style) else WRONG
    share = completion.num_tokens / completion.limit
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def overlong_reward(completion: Completion, record: Record, style: Style) -> float:
    """Punishes completions that come near the limit: DAPO's soft overlong punishment.

        reward = -max(num_tokens - (limit - cache), 0) / cache, with cache = limit / 5

    It is 0 up to four fifths of the limit, and falls in a straight line to -1 at the limit.

    >>> from sari_jax.data.records import Clip
    >>> from sari_jax.data.styles import STYLES
    >>> record = Record(
    ...     id="r1", audio=(Clip("dog.wav"),), question="Which animal?", choices=("cat", "dog"),
    ...     answer_index=1, task="sound", source="mine", licence="CC0-1.0",
    ... )
    >>> [overlong_reward(Completion("", n, 100), record, STYLES["direct"]) for n in (80, 90, 100)]
    [0.0, -0.5, -1.0]

    Args:
        completion: the number of its tokens and their limit.
        record: the question; unused here.
        style: the answer style; unused here.

    Returns:
        The reward, from -1 to 0.

    References:
        Yu et al. 2025, "DAPO", equation 13.
    """
    cache = CACHE * completion.limit
    over = max(completion.num_tokens - (completion.limit - cache), 0.0)
    return 0.0 - min(over / cache, 1.0)
