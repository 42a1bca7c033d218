"""A corpus in two: questions with chains for SFT, and the rest for GRPO (SARI: 2,000 and 30,000)."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sari_jax.data.ledger import Ledger
from sari_jax.data.records import Record
from sari_jax.errors import InputError

# Which fields of a record each choice asks for.
CHAINS = {
    "structured": ("chain_structured",),
    "free": ("chain_free",),
    "both": ("chain_structured", "chain_free"),
    "none": (),
}


def split(
    records: Sequence[Record],
    ledger: Ledger,
    *,
    sft: int,
    rl: int,
    seed: int = 0,
    chains: str = "structured",
) -> tuple[list[Record], list[Record]]:
    """`sft` questions that have these chains, at random, and up to `rl` others, each in the order of the file.

    Questions about one file, or spans of it, stay together, so that no sound is learnt by heart before GRPO meets it.
    What is in neither goes to the ledger.

    Args:
        chains: that SFT's questions must have: of `CHAINS`. With "none" any question will do, for `sari data synthesize
            --records` to write them.

    Raises:
        InputError: not so many questions with these chains.
    """
    groups = _by_sound(records)
    first: set[int] = set()
    apart: set[int] = set()
    for place in np.random.default_rng(seed).permutation(len(groups)).tolist():
        found = [n for n in groups[place] if all(getattr(records[n], f) for f in CHAINS[chains])]
        if found and len(first) < sft:
            first |= set(found[: sft - len(first)])
            apart |= set(groups[place])
    if len(first) < sft:
        have = f"have {' and '.join(CHAINS[chains])}" if CHAINS[chains] else "are there"
        mend = "write more with `sari data synthesize`, or choose with --chains none and write them then"
        raise InputError(
            f"{sft} questions are asked for SFT, and {len(first)} {have}; lower --sft"
            + (f", {mend}" if CHAINS[chains] else "")
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


def _by_sound(records: Sequence[Record]) -> list[list[int]]:
    """Numbers of records that share a file, directly or through others."""
    files = {path: n for n, path in enumerate(sorted({c.path for r in records for c in r.audio}))}
    heard = [[files[clip.path] for clip in record.audio] for record in records]
    rows = [file[0] for file in heard for _ in file]
    columns = [other for file in heard for other in file]
    links = coo_array((np.ones(len(rows), bool), (rows, columns)), (len(files), len(files)))
    _, group_of = connected_components(links, directed=False)
    groups: dict[int, list[int]] = defaultdict(list)
    for number, file in enumerate(heard):
        groups[int(group_of[file[0]])].append(number)
    return list(groups.values())
