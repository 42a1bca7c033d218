"""A limit on the cost of replies, in tokens and in money."""

import dataclasses
import threading
from collections.abc import Iterable
from typing import Any

from sari_jax.corpus.synthesize.cache import Reply


@dataclasses.dataclass(frozen=True)
class Limits:
    """Spending limits; None is no limit.

    Attributes:
        tokens: the limit on the tokens of prompts and replies together.
        cost: the limit on the cost, in the currency of the prices.
        price_in: the price of a million tokens of prompts.
        price_out: the price of a million tokens of replies.
    """

    tokens: int | None = None
    cost: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0


class Budget:
    """Counts spending; many threads may use it at once.

    Args:
        earlier: replies that were paid for before. They count against the limits, so that a run that is killed and
            started again spends no more than an undisturbed one.
    """

    def __init__(self, limits: Limits = Limits(), earlier: Iterable[Reply] = ()):
        self.limits = limits
        self._lock = threading.Lock()
        self.prompt_tokens = 0
        self.completion_tokens = 0
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
        """Whether nothing more may be sent. Requests already sent still count, and may exceed the limit."""
        limits = self.limits
        return (limits.tokens is not None and self.tokens >= limits.tokens) or (
            limits.cost is not None and self.cost >= limits.cost
        )

    def report(self) -> dict[str, Any]:
        spent: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }
        if self.limits.price_in or self.limits.price_out:
            spent["cost"] = self.cost
        return spent
