"""The split of a corpus into questions with chains for SFT and others for GRPO (SARI: 2,000 and 30,000)."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sari_jax.data.ledger import Ledger
from sari_jax.data.records import Record
from sari_jax.errors import InputError

# The fields of a record that each choice requires.
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
    """Draws `sft` questions that have these chains, and up to `rl` others; each part keeps the order of the file.

    Questions about one audio file, or spans of it, are never in both parts: otherwise SFT could memorise audio that
    GRPO uses. Questions in neither part go to the ledger.

    Args:
        chains: the chains that SFT's questions must have, a key of `CHAINS`. With "none" any question will do, and
            `sari data synthesize --records` can write the chains later.

    Raises:
        InputError: there are not enough questions with these chains.
    """
    groups = _by_file(records)
    # Indices of SFT's questions, and of all questions that share a file with them.
    first: set[int] = set()
    apart: set[int] = set()
    for place in np.random.default_rng(seed).permutation(len(groups)).tolist():
        found = [i for i in groups[place] if all(getattr(records[i], f) for f in CHAINS[chains])]
        if found and len(first) < sft:
            first |= set(found[: sft - len(first)])
            apart |= set(groups[place])
    if len(first) < sft:
        have = f"have {' and '.join(CHAINS[chains])}" if CHAINS[chains] else "are there"
        advice = "write more with `sari data synthesize`, or split with --chains none and write them afterwards"
        raise InputError(
            f"{sft} questions are asked for SFT, and {len(first)} {have}; lower --sft"
            + (f", {advice}" if CHAINS[chains] else "")
        )
    others = [i for i in range(len(records)) if i not in apart]
    second = set(np.random.default_rng([seed, 1]).permutation(others)[:rl].tolist())
    taken = first | second
    ledger.keep(len(taken))
    for i, record in enumerate(records):
        if i not in taken:
            reason = "sound is in the SFT part" if i in apart else "not needed"
            ledger.drop(record.id, reason)
    return [records[i] for i in sorted(first)], [records[i] for i in sorted(second)]


def _by_file(records: Sequence[Record]) -> list[list[int]]:
    """Returns groups of indices of records that share an audio file, directly or through other records."""
    files = {path: i for i, path in enumerate(sorted({c.path for r in records for c in r.audio}))}
    files_of = [[files[clip.path] for clip in record.audio] for record in records]
    rows = [used[0] for used in files_of for _ in used]
    columns = [file for used in files_of for file in used]
    links = coo_array((np.ones(len(rows), bool), (rows, columns)), (len(files), len(files)))
    _, group_of = connected_components(links, directed=False)
    groups: dict[int, list[int]] = defaultdict(list)
    for i, used in enumerate(files_of):
        groups[int(group_of[used[0]])].append(i)
    return list(groups.values())
