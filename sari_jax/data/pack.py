"""Packing of a corpus into one folder: questions as JSON lines, clips in ArrayRecord shards.

Questions stay text: a run reads all of them at its start, since a curriculum has to know every pass rate. Audio is read
clip by clip, in any order, and therefore goes into shards. Each clip is stored once, however many questions ask about
it.
"""

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sari_jax.audio.clips import load_clip
from sari_jax.audio.packed import Shards, writing
from sari_jax.audio.spans import SAMPLE_RATE
from sari_jax.data.ledger import Ledger
from sari_jax.data.records import Clip, Record, write_records
from sari_jax.errors import InputError

# Clips in a shard: some 160 MB of ten-second clips.
CLIPS = 1024
UNREADABLE = "sound unreadable"


def pack(folder: Path, records: list[Record], ledger: Ledger, *, clips: int = CLIPS) -> int:
    """Writes records.jsonl and its shards into a folder.

    Clips become 16 kHz mono flac of 16 bits, cut to their spans. A clip that already is 16 kHz mono of 16 bits stays
    the same bit for bit. A record whose audio cannot be read is dropped.

    Args:
        folder: an empty folder.
        records: the corpus.
        ledger: counts the records that are kept, and takes those that are dropped.
        clips: the number of clips in a shard.

    Returns:
        The number of clips.

    Raises:
        InputError: no record has audio that can be read.
    """
    names: dict[Clip, Clip | InputError] = {}
    kept, errors = [], []
    with writing(folder, clips) as shards:
        waveforms = _read(clip for record in records for clip in record.audio)
        bar = tqdm(records, desc="pack", file=sys.stderr, disable=None)
        for record in bar:
            for clip in record.audio:
                if clip not in names:
                    names[clip] = _add(shards, next(waveforms))
            found = [names[clip] for clip in record.audio]
            errors = [name for name in found if isinstance(name, InputError)]
            if errors:
                ledger.drop(record.id, UNREADABLE, str(errors[0]))
            else:
                kept.append(replace(record, audio=tuple(found)))
                ledger.keep()
    if not kept:
        raise InputError(
            f"none of {len(records)} records has audio that can be read ({errors[0]}); check their paths"
        )
    write_records(folder / "records.jsonl", kept)
    return shards.count


def _add(shards: Shards, decoded: "Future[np.ndarray]") -> Clip | InputError:
    """Packs a clip; its end is part of the result, so that its length is known before it is read."""
    try:
        waveform = decoded.result()
        return Clip(shards.add(waveform, SAMPLE_RATE), end=len(waveform) / SAMPLE_RATE)
    except InputError as error:
        return error


def _read(clips: Iterable[Clip]) -> Iterator["Future[np.ndarray]"]:
    """Decodes each clip once, in order, some of them ahead."""
    with ThreadPoolExecutor(max_workers=4) as readers:
        ahead: deque[Future[np.ndarray]] = deque()
        for clip in dict.fromkeys(clips):
            ahead.append(readers.submit(load_clip, clip.path, clip.start, clip.end))
            if len(ahead) == 16:
                yield ahead.popleft()
        yield from ahead
