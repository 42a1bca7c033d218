"""Wav headers that were never filled in, in the forms that ffmpeg, sox, Python's wave and others leave behind."""

import io
import itertools
import struct

import numpy as np
import pytest
import soundfile

from sari_jax.audio.clips import duration
from sari_jax.audio.files import load_waveform
from sari_jax.audio.wav import patch_open_header
from sari_jax.errors import InputError

SAMPLES = np.round(9000 * np.random.default_rng(0).standard_normal(3000).clip(-3, 3)) / 32768
RAW = (SAMPLES * 32768).astype("<i2").tobytes()
FULL = 0xFFFFFFFF
# What ffmpeg puts before the samples; an odd size, which a byte of padding follows; a chunk that claims to be empty.
BEFORE = [
    b"",
    b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf60.16.100\0",
    b"JUNK" + struct.pack("<I", 3) + b"abc\0" + b"fact" + struct.pack("<I", 4) + bytes(4),
    b"LIST" + struct.pack("<I", 0),
]


def chunk(name: bytes, size: int, content: bytes = b"", order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", size) + content


def form(order: str = "<") -> bytes:
    return chunk(b"fmt ", 16, struct.pack(f"{order}HHIIHH", 1, 1, 16_000, 32_000, 2, 16), order)


def wav(riff: int, data: int, before: bytes = b"", samples: bytes = RAW) -> bytes:
    return chunk(b"RIFF", riff, b"WAVE" + form() + before + chunk(b"data", data, samples))


@pytest.mark.parametrize("before", BEFORE, ids=["bare", "ffmpeg", "odd", "empty"])
@pytest.mark.parametrize("data", [0, FULL, 0x7FFFFFFF, 0x80000000, FULL - 36, 0x7FFFF000])
def test_a_stream_is_read_to_its_end(tmp_path, data, before):
    riffs = [0, 36, FULL, 0x7FFFFFFF, len(RAW) + 36, FULL - 8]
    for riff, kept in itertools.product(riffs, [len(RAW), len(RAW) - 1, len(RAW) // 3]):
        content = wav(riff, data, before, RAW[:kept])
        np.testing.assert_array_equal(load_waveform(content), SAMPLES[: kept // 2])
    (tmp_path / "a.wav").write_bytes(content)
    np.testing.assert_array_equal(load_waveform(tmp_path / "a.wav"), SAMPLES[: kept // 2])
    assert duration(str(tmp_path / "a.wav")) == kept // 2 / 16_000
    span = load_waveform(tmp_path / "a.wav", start=0.01, end=0.05)
    np.testing.assert_array_equal(span, SAMPLES[160:800])


@pytest.mark.parametrize("size", [0, 2**64 - 1])
def test_a_stream_with_wide_sizes(size):
    wide = chunk(b"ds64", 28, struct.pack("<QQQI", size, size, 0, 0))
    content = chunk(b"RF64", FULL, b"WAVE" + wide + form() + chunk(b"data", FULL, RAW))
    np.testing.assert_array_equal(load_waveform(content), SAMPLES)


def test_a_stream_of_the_other_order_of_bytes():
    samples = (SAMPLES * 32768).astype(">i2").tobytes()
    content = chunk(b"RIFX", 0, b"WAVE" + form(">") + chunk(b"data", 0, samples, ">"), ">")
    np.testing.assert_array_equal(load_waveform(content), SAMPLES)


def test_silence_is_no_chunk():
    assert len(load_waveform(wav(0, 0, samples=bytes(3200)))) == 1600


@pytest.mark.parametrize("after", [b"", b"LIST" + struct.pack("<I", 4) + b"INFO"])
def test_what_holds_no_samples_is_told(after):
    content = wav(36 + len(after), 0, samples=after)
    assert patch_open_header(io.BytesIO(content)) == []
    with pytest.raises(InputError, match="holds no samples"):
        load_waveform(content)


def test_headers_that_say_what_there_is_stay_as_they_are():
    for subtype, kind in (("PCM_16", "WAV"), ("FLOAT", "WAVEX"), ("PCM_24", "RF64")):
        file = io.BytesIO()
        soundfile.write(file, SAMPLES, 16_000, format=kind, subtype=subtype)
        assert patch_open_header(file) == [] and file.tell() == 0
    for other in (b"", b"RIFF", b"fLaC" + bytes(99), wav(0, 2)[:30], wav(0, 0)[:44]):
        assert patch_open_header(io.BytesIO(other)) == []
    endless = chunk(b"RIFF", 0, b"WAVE" + chunk(b"JUNK", 0) * 5000)
    assert patch_open_header(io.BytesIO(endless)) == []
