"""Audio fingerprints, which recognise a sound after re-encoding, gain, resampling, noise and trimming.

They follow Haitsma & Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR 2002). A sound has one number for
every 13 ms. Each bit of the number is the sign of a difference between neighbouring bands and neighbouring times. Two
sounds are aligned where they share a number and compared by the fraction of bits that differ.

One thing is ours. A difference that is small beside the frame's energy gives no bit: in sparse music most bands hold
only noise, whose signs any encoder changes. So each of the 32 differences has two bits (up, down), and the error is the
share of differing bits among those set in either sound.

It is written by hand because pyacoustid needs the system's chromaprint, which many training machines lack, and the
other packages on PyPI are not maintained.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import soxr
from jaxtyping import Bool, Float, Int64, UInt32, UInt64

from sari_jax.audio.spans import SAMPLE_RATE

# Hz, enough for the bands.
RATE = 5_000
# Samples: 0.41 s and 12.8 ms. The overlap is so large that a shift by half a hop changes few bits.
FRAME, HOP = 2_048, 64
# Hz. 33 bands give 32 differences.
LOWEST, HIGHEST, BANDS = 300.0, 2_000.0, 33
# A fraction of the loudest frame's energy. Frames below it are noise and are not compared.
QUIET = 1e-5
# A fraction of a frame's energy. Bands that change less hold noise or a steady tone and give no bits.
DEAD_ZONE = 2e-3
# Bits of a frame. With fewer it could be any other frame.
LEAST_MOVES = 3
# A fraction of the bits set in either sound. Different sounds begin at about 0.3.
MOST_ERRORS = 0.25
# Compared frames, half a second.
LEAST_FRAMES = 40
# A fraction of the comparable frames of the longer sound, or of the shorter one where excerpts count.
LEAST_SHARE = 0.6
# Two sounds are compared from this many numbers in common on.
SHARED = 2
# Above this number of sounds that share a number, each is paired with few of them:
CROWD = 24
# with this many of the first ones, and with the one before it.
FIRSTS = 4
# A sound is compared with this many of the others, those that share most numbers with it.
CLOSEST = 12
# Numbers sorted at a time.
AT_ONCE = 1 << 22


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """The fingerprint of one sound.

    Attributes:
        digest: a hash of its samples at 16 kHz and 16 bits; equal audio has equal digests.
        samples: their count at 16 kHz.
        peak: the largest absolute sample, 1 at full scale.
        bits: [N] one number per frame.
        valid: [N] whether the frame is loud and lively enough to compare.
    """

    digest: str
    samples: int
    peak: float
    bits: np.ndarray
    valid: np.ndarray


def fingerprint(waveform: Float[np.ndarray, "S"]) -> Fingerprint:
    """Computes the fingerprint of a waveform at 16 kHz, which must not be empty."""
    whole = np.round(np.clip(waveform, -1, 1) * 32_767).astype("<i2")
    digest = hashlib.sha256(whole.tobytes()).hexdigest()
    bits, valid = _frames(waveform)
    return Fingerprint(digest, len(waveform), float(np.abs(waveform).max()), bits, valid)


def _frames(
    waveform: Float[np.ndarray, "S"],
) -> tuple[UInt64[np.ndarray, "N"], Bool[np.ndarray, "N"]]:
    slow = soxr.resample(waveform, SAMPLE_RATE, RATE, quality="MQ")
    # Silence on both sides, so that a sound shorter than a frame has frames too.
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
    """Returns the fraction of set bits that differ at the best alignment; 1.0 where the overlap is too short.

    Args:
        excerpts: whether a part of the other sound counts as the same. Without it, three barks are not four.
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
    """Returns pairs (i, j, bit errors) of sounds that are nearly the same.

    Within `sounds`, i < j. With `against`, j is an index of `against`, and excerpts count. Only sounds that share
    numbers are compared, and not all pairs of a crowd: each sound is compared with the FIRSTS of the crowd and the one
    before it. With `against`, each is compared with the CLOSEST that share most numbers.
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
    """Yields for each sound the earlier ones that share SHARED numbers with it, of a crowd FIRSTS and the last."""
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
    """Returns the owners of each number that at least two sounds have, and where each number's owners begin.

    Hours of audio have hundreds of millions of numbers, most of them in one sound alone. They are sorted in parts, by a
    hash of the number, about AT_ONCE at a time.
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
    """Returns a sound's distinct numbers, or one part of `parts` (a power of two) of them, by Fibonacci hashing."""
    own = sound.bits[sound.valid]
    if parts > 1:
        hashed = (own * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(65 - parts.bit_length())
        own = own[hashed == part]
    return np.unique(own)


def _most_shared(
    sounds: Sequence[Fingerprint], against: Sequence[Fingerprint]
) -> Iterator[np.ndarray]:
    """Yields for each sound those of `against` that share SHARED numbers with it, CLOSEST of them at most."""
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
    """Returns the ranges that begin at `first`, one after the other: [5, 9] and [2, 3] give [5, 6, 9, 10, 11]."""
    return np.repeat(first - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
