"""Audio fingerprints: by which a sound is known again after re-encoding, gain, resampling, noise and trimming.

After Haitsma & Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR 2002): every 13 ms one number, each bit of
it the sign of a difference between neighbouring bands and neighbouring times. Two sounds are compared where they share
a number, by the fraction of bits that differ there. Unlike theirs, a difference that is small beside the frame's energy
gives no bit at all: in sparse music most bands hold nothing but noise, whose signs any encoder changes. So there are
two bits for each of the 32 differences (up, down), and of the bits set in either sound those count that differ.

Written by hand: of what can be installed from PyPI, pyacoustid needs the system's chromaprint, which many machines that
train have not got, and others are not maintained.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import soxr
from jaxtyping import Bool, Float, Int64, UInt32, UInt64

RATE = 5_000  # Hz, enough for the bands
FRAME, HOP = (
    2_048,
    64,
)  # 0.41 s and 12.8 ms: so much overlap that a shift of half a hop changes few bits
LOWEST, HIGHEST, BANDS = 300.0, 2_000.0, 33  # Hz; 33 bands give 32 differences
QUIET = 1e-5  # of the loudest frame's energy: what lies below is noise, and is not compared
DEAD_ZONE = (
    2e-3  # of a frame's energy: bands that move less hold noise, or a steady tone, and give no bits
)
LEAST_MOVES = 3  # bits of a frame, without which it could be any other
MOST_ERRORS = 0.25  # of the bits set in either; different sounds begin at about 0.3
LEAST_FRAMES = 40  # compared frames, half a second
LEAST_SHARE = (
    0.6  # of the comparable frames of the longer sound, or of the shorter where excerpts count
)
SHARED = 2  # numbers in common, from which on two sounds are compared
CROWD = 24  # sounds that share a number, beyond which each is paired with few of them
FIRSTS = 4  # of a crowd, with which, beside the one before it, each other is paired
CLOSEST = 12  # of the others, those that share most numbers, with which a sound is compared
AT_ONCE = 1 << 22  # numbers sorted at a time


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Of one sound.

    Attributes:
        digest: of its samples at 16 kHz and 16 bits: equal for equal sound.
        samples: at 16 kHz.
        peak: of its samples, 1 at full scale.
        bits: [N] one number per frame.
        valid: [N] whether the frame is loud and lively enough to compare.
    """

    digest: str
    samples: int
    peak: float
    bits: np.ndarray
    valid: np.ndarray


def fingerprint(waveform: Float[np.ndarray, "S"]) -> Fingerprint:
    """Of a waveform at 16 kHz, which is not empty."""
    whole = np.round(np.clip(waveform, -1, 1) * 32_767).astype("<i2")
    digest = hashlib.sha256(whole.tobytes()).hexdigest()
    bits, valid = _frames(waveform)
    return Fingerprint(digest, len(waveform), float(np.abs(waveform).max()), bits, valid)


def _frames(
    waveform: Float[np.ndarray, "S"],
) -> tuple[UInt64[np.ndarray, "N"], Bool[np.ndarray, "N"]]:
    slow = soxr.resample(waveform, 16_000, RATE, quality="MQ")
    # Silence on both sides, so that a sound shorter than a frame has some too.
    slow = np.pad(slow, FRAME // 2)
    frames = np.lib.stride_tricks.sliding_window_view(slow, FRAME)[::HOP]
    edges = np.geomspace(LOWEST, HIGHEST, BANDS + 1) * FRAME / RATE
    edges = np.round(edges).astype(int)
    window = np.hanning(FRAME).astype(np.float32)
    energies = []
    for first in range(0, len(frames), 512):  # ten minutes at once would take a gigabyte
        spectrum = np.fft.rfft(frames[first : first + 512] * window)[:, edges[0] : edges[-1]]
        power = spectrum.real**2 + spectrum.imag**2
        energies.append(np.add.reduceat(power, edges[:-1] - edges[0], axis=1))
    energy = np.concatenate(energies).astype(np.float64)
    change = np.diff(energy[:, :-1] - energy[:, 1:], axis=0)
    total = energy[1:].sum(axis=1)
    loud = total > max(QUIET * total.max(initial=0.0), 1e-7)
    floor = DEAD_ZONE * total[:, None]
    moves = np.concatenate([change > floor, change < -floor], axis=1)
    bits = np.packbits(moves, axis=1).view(">u8")[:, 0].astype(np.uint64)
    return bits, loud & (np.bitwise_count(bits) >= LEAST_MOVES)


def bit_errors(a: Fingerprint, b: Fingerprint, *, excerpts: bool = False) -> float:
    """The fraction of set bits that differ where the two fit best; 1.0 where too little can be laid side by side.

    Args:
        excerpts: whether a sound that is part of the other is the same. Else three barks are not four.
    """
    here, there = np.flatnonzero(a.valid), np.flatnonzero(b.valid)
    shorter, longer = sorted((len(here), len(there)))
    least = max(LEAST_FRAMES, LEAST_SHARE * (shorter if excerpts else longer))
    if shorter < least:
        return 1.0
    order = there[np.argsort(b.bits[there], kind="stable")]
    values = b.bits[order]
    first = np.searchsorted(values, a.bits[here], "left")
    size = np.searchsorted(values, a.bits[here], "right") - first
    offsets = [
        order[first[size > i] + i] - here[size > i] for i in range(min(4, size.max(initial=0)))
    ]
    if not offsets:
        return 1.0
    found, votes = np.unique(np.concatenate(offsets), return_counts=True)
    best = 1.0
    for offset in found[np.argsort(-votes, kind="stable")[:4]]:
        start, stop = max(0, -offset), min(len(a.bits), len(b.bits) - offset)
        both = a.valid[start:stop] & b.valid[start + offset : stop + offset]
        if np.count_nonzero(both) >= least:
            ours, theirs = a.bits[start:stop][both], b.bits[start + offset : stop + offset][both]
            differ = np.bitwise_count(ours ^ theirs).sum(dtype=int)
            best = min(best, float(differ / np.bitwise_count(ours | theirs).sum(dtype=int)))
    return best


def near_pairs(
    sounds: Sequence[Fingerprint], against: Sequence[Fingerprint] | None = None
) -> list[tuple[int, int, float]]:
    """Pairs (i, j, bit errors) of sounds that are nearly the same: i < j; or j of `against`, where excerpts count.

    Only those are compared that share numbers. Of a crowd that shares them not all pairs are: each is compared with
    the FIRSTS of the crowd and the one before it. Against others, each is compared with the CLOSEST that share most.
    """
    rivals = _earlier(sounds) if against is None else _most_shared(sounds, against)
    found = []
    for i, others in enumerate(rivals):
        for j in sorted(others.tolist()):
            a, b = (j, i) if against is None else (i, j)
            errors = bit_errors(sounds[a], (against or sounds)[b], excerpts=against is not None)
            if errors <= MOST_ERRORS:
                found.append((a, b, errors))
    return sorted(found)


def _earlier(sounds: Sequence[Fingerprint]) -> Iterator[np.ndarray]:
    """Of each sound those before it that share SHARED numbers with it; of a crowd FIRSTS and the neighbour."""
    owners, starts = _shared_numbers(sounds)
    places = np.argsort(owners, kind="stable")
    bounds = np.searchsorted(owners[places], np.arange(len(sounds) + 1))
    for i in range(len(sounds)):
        place = places[bounds[i] : bounds[i + 1]]
        group = np.searchsorted(starts, place, "right") - 1
        first, before = starts[group], place - starts[group]
        crowded = starts[group + 1] - first > CROWD
        partners = owners[_ranges(first, np.where(crowded, np.minimum(before, FIRSTS), before))]
        neighbours = owners[place[crowded & (before > FIRSTS)] - 1]
        others, shared = np.unique(np.concatenate([partners, neighbours]), return_counts=True)
        yield others[shared >= SHARED]


def _shared_numbers(
    sounds: Sequence[Fingerprint],
) -> tuple[UInt32[np.ndarray, "N"], Int64[np.ndarray, "G"]]:
    """Whose the numbers are that two sounds or more have, number by number, and where each number's owners begin.

    In parts, by a hash of the number, so that no more than AT_ONCE or so are sorted at a time: hours of sound have
    hundreds of millions, most of them of one sound alone.
    """
    total = sum(int(np.count_nonzero(sound.valid)) for sound in sounds)
    parts = 1 << max(0, (total // AT_ONCE).bit_length())
    owners, sizes = [np.zeros(0, np.uint32)], [np.zeros(0, int)]
    for part in range(parts):
        own = [_numbers(sound, part, parts) for sound in sounds]
        values = np.concatenate([*own, np.zeros(0, np.uint64)])
        order = np.argsort(values, kind="stable")
        whose = np.repeat(np.arange(len(own), dtype=np.uint32), [len(x) for x in own])[order]
        values = values[order]
        starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]][: len(values)])
        size = np.diff(np.r_[starts, len(values)])
        owners.append(whose[np.repeat(size > 1, size)])
        sizes.append(size[size > 1])
    return np.concatenate(owners), np.cumsum(np.concatenate([[0], *sizes]))


def _numbers(sound: Fingerprint, part: int = 0, parts: int = 1) -> UInt64[np.ndarray, "N"]:
    """A sound's different numbers; of them, one part of so many (a power of two), by Fibonacci hashing."""
    own = sound.bits[sound.valid]
    if parts > 1:
        hashed = (own * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(65 - parts.bit_length())
        own = own[hashed == part]
    return np.unique(own)


def _most_shared(
    sounds: Sequence[Fingerprint], against: Sequence[Fingerprint]
) -> Iterator[np.ndarray]:
    """Of each sound those of `against` that share SHARED numbers with it, CLOSEST of them at most."""
    numbers = [_numbers(other) for other in against]
    values = np.concatenate([*numbers, np.zeros(0, np.uint64)])
    owners = np.repeat(np.arange(len(against), dtype=np.uint32), [len(own) for own in numbers])
    order = np.argsort(values, kind="stable")
    values, owners = values[order], owners[order]
    for sound in sounds:
        own = _numbers(sound)
        first = np.searchsorted(values, own, "left")
        partners = owners[_ranges(first, np.searchsorted(values, own, "right") - first)]
        others, shared = np.unique(partners, return_counts=True)
        most = np.argsort(-shared, kind="stable")[:CLOSEST]
        yield others[most[shared[most] >= SHARED]]


def _ranges(first: Int64[np.ndarray, "R"], sizes: Int64[np.ndarray, "R"]) -> np.ndarray:
    """[5, 9] and [2, 3] to [5, 6, 9, 10, 11]."""
    return np.repeat(first - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
