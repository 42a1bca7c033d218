"""A record of every input: kept, or dropped for exactly one reason."""

import dataclasses
from collections import Counter
from typing import Any

from sari_jax.errors import one_line


@dataclasses.dataclass(frozen=True)
class Dropped:
    """An input that was dropped.

    Attributes:
        where: `file:line`, or the id of a record.
        reason: a few words, the same for all inputs that are counted together.
        detail: the fault of this input.
    """

    where: str
    reason: str
    detail: str = ""


class Ledger:
    """Counts the inputs that are kept and lists those that are dropped."""

    def __init__(self) -> None:
        self.kept = 0
        self.dropped: list[Dropped] = []

    def keep(self, count: int = 1) -> None:
        self.kept += count

    def drop(self, where: str, reason: str, detail: str = "") -> None:
        self.dropped.append(Dropped(one_line(where), reason, one_line(detail)))

    @property
    def read(self) -> int:
        return self.kept + len(self.dropped)

    def report(self) -> dict[str, Any]:
        """Counts of `read`, `kept`, and `dropped` by reason, the most frequent first."""
        reasons = Counter(dropped.reason for dropped in self.dropped)
        return {"read": self.read, "kept": self.kept, "dropped": dict(reasons.most_common())}


class Drop(ValueError):
    """Raised for an input that has to be dropped; its text is the detail."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(detail or reason)
        self.reason = reason


def reason_of(error: ValueError, otherwise: str) -> str:
    """Returns the reason of a `Drop`, and `otherwise` for any other error."""
    return error.reason if isinstance(error, Drop) else otherwise
