"""Damaged audio files and damaged JSON lines, for `experiments.fuzz`."""

import io
import json
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import soundfile

FORMATS = ("wav", "flac", "ogg", "mp3")


def damaged_sound(number: int, generator: np.random.Generator) -> tuple[str, bytes, str]:
    """Returns a file's name, its bytes and its damage; the kinds of damage take turns."""
    names = sorted(SOUNDS)
    damage = names[number % len(names)]
    kind = FORMATS[int(generator.integers(4))]
    suffix, data = SOUNDS[damage](kind, generator)
    return f"{number}.{suffix}", data, damage


def _well(kind: str, generator: np.random.Generator) -> bytes:
    seconds = float(generator.uniform(0.05, 2))
    rate = int(generator.choice([8_000, 16_000, 44_100, 48_000]))
    channels = int(generator.integers(1, 3))
    time = np.arange(int(seconds * rate))[:, None] / rate
    pitch = generator.uniform(100, 3000, (1, channels))
    samples = 0.4 * np.sin(2 * np.pi * pitch * time * (1 + 0.3 * time))
    samples += 0.05 * generator.normal(size=samples.shape)
    return _encoded(samples, rate, kind)


def _encoded(samples: np.ndarray, rate: int, kind: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind.upper(), subtype=subtype)
    return file.getvalue()


def _header(rate: int, channels: int, claimed: int, bits: int = 16, form: int = 1) -> bytes:
    """Returns the header of a wav that claims to hold `claimed` bytes of samples."""
    width = channels * bits // 8 % 2**16
    chunk = struct.pack("<HHIIHH", form, channels, rate, rate * width % 2**32, width, bits)
    riff = b"RIFF" + struct.pack("<I", min(claimed + 36, 2**32 - 1)) + b"WAVE"
    return riff + b"fmt " + struct.pack("<I", 16) + chunk + b"data" + struct.pack("<I", claimed)


def _flips(kind: str, generator: np.random.Generator) -> tuple[str, bytes]:
    data = np.frombuffer(_well(kind, generator), np.uint8).copy()
    count = int(generator.integers(1, 64))
    # Half of them near the beginning, where the header is.
    ends = np.where(generator.random(count) < 0.5, min(200, len(data)), len(data))
    np.bitwise_xor.at(
        data,
        (generator.random(count) * ends).astype(int),
        (1 << generator.integers(0, 8, count)).astype(np.uint8),
    )
    return kind, data.tobytes()


def _cut(kind: str, generator: np.random.Generator) -> tuple[str, bytes]:
    data = _well(kind, generator)
    return kind, data[: int(len(data) * generator.random())]


def _not_finite(_: str, generator: np.random.Generator) -> tuple[str, bytes]:
    samples = generator.uniform(-0.5, 0.5, 8_000)
    value = generator.choice([np.nan, np.inf, -np.inf, 1e30, 3e38])
    samples[generator.integers(0, 8_000, 5)] = value
    return "wav", _encoded(samples, 16_000, "wav", "FLOAT")


def _wrong_header(kind: str, generator: np.random.Generator) -> tuple[str, bytes]:
    other = FORMATS[int(generator.integers(4))]
    size = int(generator.integers(4, 100))
    return kind, _well(other, generator)[:size] + _well(kind, generator)[size:]


def _wrong_suffix(kind: str, generator: np.random.Generator) -> tuple[str, bytes]:
    suffixes = [*FORMATS, "raw", "txt", "aiff", "vox", "au"]
    return str(generator.choice(suffixes)), _well(kind, generator)


def _random_header(_: str, generator: np.random.Generator) -> tuple[str, bytes]:
    """A wav with rates up to 384 kHz and beyond, up to 65,535 channels, and widths and forms that do not fit."""
    rate = int(generator.choice([0, 1, 50, 999, 1000, 384_000, 768_000, 2**31 - 1, 2**32 - 1]))
    channels = int(generator.choice([0, 1, 2, 64, 255, 1024, 65_535]))
    bits = int(generator.choice([0, 1, 8, 16, 24, 32, 64, 255]))
    form = int(generator.choice([1, 2, 3, 6, 7, 17, 49, 85, 65_534]))
    return "wav", _header(rate, channels, 40_000, bits, form) + generator.bytes(40_000)


def _claims_much(_: str, generator: np.random.Generator) -> tuple[str, bytes]:
    """A wav that claims two hours or four gigabytes, but holds a few bytes."""
    claimed = int(generator.choice([2 * 3600 * 32_000, 2**32 - 40, 2**31, 2**32 - 1]))
    return "wav", _header(16_000, int(generator.choice([1, 2, 64])), claimed) + generator.bytes(999)


def _flac_claims(_: str, generator: np.random.Generator) -> tuple[str, bytes]:
    """A flac with an arbitrary count of samples, which is 36 bits from byte 21 on."""
    data = bytearray(_well("flac", generator))
    data[21] = (data[21] & 0xF0) | int(generator.integers(16))
    data[22:26] = generator.choice([bytes(4), b"\xff" * 4, generator.bytes(4)])
    return "flac", bytes(data)


@cache
def _two_hours() -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 16_000, 1, format="FLAC") as sound:
        for _ in range(120):
            sound.write(np.zeros(16_000 * 60, np.int16))
    return file.getvalue()


def _long(_: str, generator: np.random.Generator) -> tuple[str, bytes]:
    data = bytearray(_two_hours())
    if generator.random() < 0.5:  # the header gives no length
        data[21] &= 0xF0
        data[22:26] = bytes(4)
    return "flac", bytes(data)


def _many_channels(_: str, generator: np.random.Generator) -> tuple[str, bytes]:
    rate = int(generator.choice([1_000, 16_000, 384_000]))
    samples = generator.uniform(-0.5, 0.5, (int(rate * 0.3), 64))
    return "wav", _encoded(samples, rate, "wav")


def _extreme_rate(_: str, generator: np.random.Generator) -> tuple[str, bytes]:
    rate = int(generator.choice([1, 2, 100, 999, 1_000, 4_000, 384_000, 655_350]))
    return "wav", _encoded(generator.uniform(-0.5, 0.5, 20_000), rate, "wav")


def _garbage_after(kind: str, generator: np.random.Generator) -> tuple[str, bytes]:
    data = _well(kind, generator)
    size = int(generator.integers(12, 200))
    return kind, data[:size] + generator.bytes(len(data))


def _tagged(kind: str, generator: np.random.Generator) -> tuple[str, bytes]:
    """A file behind an ID3 tag whose size is true, false or beyond the end."""
    size = int(generator.choice([10, 1000, 2**27, 2**28 - 1]))
    seven = bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
    body = generator.bytes(min(size, 1000))
    return kind, b"ID3\x04\x00\x00" + seven + body + _well(kind, generator)


def _chunks(_: str, generator: np.random.Generator) -> tuple[str, bytes]:
    """A wav with chunks of random names and sizes, LIST INFO among them."""
    whole = _well("wav", generator)
    odd = b""
    for _ in range(int(generator.integers(1, 5))):
        name = [b"LIST", b"INFO", b"data", b"fmt ", b"bext", b"fact", generator.bytes(4)]
        size = int(generator.choice([0, 1, 7, 4000, 2**31, 2**32 - 1]))
        odd += name[int(generator.integers(7))] + struct.pack("<I", size)
        odd += generator.choice([b"INFO", b""]) + generator.bytes(int(generator.integers(20)))
    place = int(generator.choice([12, 36]))
    return "wav", whole[:place] + odd + whole[place:]


SOUNDS: dict[str, Callable[[str, np.random.Generator], tuple[str, bytes]]] = {
    "none": lambda kind, generator: (kind, _well(kind, generator)),
    "bits flipped": _flips,
    "more bits flipped": _flips,
    "cut": _cut,
    "cut again": _cut,
    "zero length": lambda kind, _: (kind, b""),
    "no samples": lambda kind, _: ("wav", _header(16_000, 1, 0)),
    "not finite": _not_finite,
    "wrong header": _wrong_header,
    "wrong suffix": _wrong_suffix,
    "random header": _random_header,
    "claims much": _claims_much,
    "flac claims": _flac_claims,
    "two hours": _long,
    "64 channels": _many_channels,
    "extreme rate": _extreme_rate,
    "garbage after the header": _garbage_after,
    "ID3": _tagged,
    "odd chunks": _chunks,
    "noise": lambda kind, generator: (kind, generator.bytes(int(generator.integers(1, 5000)))),
    "silence": lambda kind, _: (kind, _encoded(np.zeros(8_000), 16_000, kind)),
    "one sample": lambda kind, _: (kind, _encoded(np.ones(1) * 0.5, 16_000, kind)),
}

ODD: list[Any] = [
    None,
    True,
    -1,
    0.5,
    10**300,
    10**4000,
    "",
    " ",
    "\0",
    "x\ny",
    "\u2028",
    "\U0001f600",
    [],
    {},
    [[]],
    [None],
    ["a"],
    ["a", 1],
    [{"path": 3}],
    [{"path": "\0"}],
    [{"path": "a\nb.wav"}],
    [{"path": "../" * 2000}],
    [{"path": "well"}],
    [{"path": "/dev/zero"}],
    [{"path": "well/0.wav", "start": -1}],
    [{"path": "well/0.wav", "start": 1e308}],
    [{"path": "well/0.wav", "end": 10**400}],
    [{"path": "well/0.wav", "start": 0.9999, "end": 1.0}],
    [{"path": "well/0.wav"}] * 100,
]


def damaged_line(record: dict[str, Any], generator: np.random.Generator) -> tuple[bytes, str]:
    """Returns the record as a damaged line, and the damage."""
    damage = str(generator.choice(LINES))
    whole = json.dumps(record).encode()
    key = str(generator.choice(list(record)))
    if damage == "cut":
        return whole[: int(generator.integers(len(whole)))], damage
    if damage == "odd value":
        return json.dumps(record | {key: ODD[int(generator.integers(len(ODD)))]}).encode(), damage
    if damage == "missing key":
        return json.dumps({k: v for k, v in record.items() if k != key}).encode(), damage
    if damage == "repeated id":
        return json.dumps(record | {"id": f"l{generator.integers(20)}"}).encode(), damage
    if damage == "odd key":
        return json.dumps(record | {"x" * 1000: [1], "": {}}).encode(), damage
    if damage == "deep":
        return whole[:-1] + b', "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", damage
    if damage == "long":
        return json.dumps(record | {key: "x " * 500_000}).encode(), damage
    if damage == "not UTF-8":
        place = int(generator.integers(len(whole)))
        return whole[:place] + b"\xff\xfe\xc0" + whole[place:], damage
    if damage == "half a character":
        return json.dumps(record | {"question": "what \ud800?"}).encode(), damage
    if damage == "NUL":
        place = int(generator.integers(len(whole)))
        return whole[:place] + b"\0" + whole[place:], damage
    if damage == "bytes changed":
        data = np.frombuffer(whole, np.uint8).copy()
        data[generator.integers(0, len(data), 3)] = generator.integers(0, 256, 3)
        return data.tobytes(), damage
    if damage == "number":
        number = generator.choice(["1e999", "NaN", "-Infinity", "1" * 5000, "01", "1e-999"])
        return whole.replace(
            b'"answer_index": ', b'"answer_index": ' + str(number).encode()
        ), damage
    return whole, damage


LINES = (
    "none",
    "cut",
    "odd value",
    "odd value",
    "missing key",
    "repeated id",
    "odd key",
    "deep",
    "long",
    "not UTF-8",
    "half a character",
    "NUL",
    "bytes changed",
    "number",
)
