"""A corpus in two: questions with chains for SFT, and the rest for GRPO (SARI: 2,000 and 30,000)."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from sari_jax.data.ledger import Ledger
from sari_jax.data.records import Clip, Record
from sari_jax.errors import InputError


def split(
    records: Sequence[Record], ledger: Ledger, *, sft: int, rl: int, seed: int = 0
) -> tuple[list[Record], list[Record]]:
    """`sft` questions that have both chains, at random, and up to `rl` others, each in the order of the file.

    Questions about one clip stay together, so that no sound is learnt by heart before GRPO meets it. What is in
    neither goes to the ledger.

    Raises:
        InputError: not so many questions with chains.
    """
    about: dict[Clip, list[int]] = defaultdict(list)
    for number, record in enumerate(records):
        about[record.audio[0]].append(number)
    groups = list(about.values())
    chained = lambda number: None not in (  # noqa: E731
        records[number].chain_structured, records[number].chain_free
    )  # fmt: skip
    first: set[int] = set()
    apart: set[int] = set()
    for place in np.random.default_rng(seed).permutation(len(groups)).tolist():
        found = [number for number in groups[place] if chained(number)]
        if found and len(first) < sft:
            first |= set(found[: sft - len(first)])
            apart |= set(groups[place])
    if len(first) < sft:
        raise InputError(
            f"{sft} questions are asked for SFT, and {len(first)} have both chains; write more with"
            " `sari data synthesize`, or lower --sft"
        )
    others = [number for number in range(len(records)) if number not in apart]
    second = set(np.random.default_rng([seed, 1]).permutation(others)[:rl].tolist())
    taken = first | second
    ledger.keep(len(taken))
    for number, record in enumerate(records):
        if number not in taken:
            reason = "sound is in the SFT part" if number in apart else "not needed"
            ledger.drop(record.id, reason)
    return [records[n] for n in sorted(first)], [records[n] for n in sorted(second)]
