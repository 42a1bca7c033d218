"""What replies may cost, in tokens and in money."""

import dataclasses
import threading
from collections.abc import Iterable
from typing import Any

from sari_jax.corpus.synthesize.cache import Reply


@dataclasses.dataclass(frozen=True)
class Limits:
    """Ends of spending; None is none.

    Attributes:
        tokens: of prompts and replies together.
        cost: in the currency of the prices.
        price_in, price_out: of a million tokens of prompts and of replies.
    """

    tokens: int | None = None
    cost: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0


class Budget:
    """Counts what was spent, by many threads at once.

    Args:
        earlier: replies that were paid for before. They count against the limits, so that a run that was killed and
            started again spends no more than one that was not.
    """

    def __init__(self, limits: Limits = Limits(), earlier: Iterable[Reply] = ()):
        self.limits = limits
        self._lock = threading.Lock()
        self.prompt_tokens = self.completion_tokens = 0
        for reply in earlier:
            self.spend(reply)

    def spend(self, reply: Reply) -> None:
        with self._lock:
            self.prompt_tokens += reply.prompt_tokens
            self.completion_tokens += reply.completion_tokens

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def cost(self) -> float:
        limits = self.limits
        millions = limits.price_in * self.prompt_tokens + limits.price_out * self.completion_tokens
        return millions / 1e6

    @property
    def exhausted(self) -> bool:
        """Whether nothing more may be sent. What is under way by then still counts: a limit may be overrun by it."""
        limits = self.limits
        return (limits.tokens is not None and self.tokens >= limits.tokens) or (
            limits.cost is not None and self.cost >= limits.cost
        )

    def report(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }
        if self.limits.price_in or self.limits.price_out:
            told["cost"] = self.cost
        return told
