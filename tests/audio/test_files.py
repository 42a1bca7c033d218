import io
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr

from sari_jax.audio.files import load_waveform
from sari_jax.errors import InputError

SECONDS, TONE = 1.5, 440.0


def tone(rate: int, seconds: float = SECONDS) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * TONE * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32
    )


def loudest_hertz(waveform: np.ndarray, rate: int = 16_000) -> float:
    return float(np.abs(np.fft.rfft(waveform)).argmax() * rate / len(waveform))


FORMATS = {
    ("wav", "PCM_U8"): 1e-2,
    ("wav", "PCM_16"): 1e-4,
    ("wav", "PCM_24"): 1e-6,
    ("wav", "PCM_32"): 1e-6,
    ("wav", "FLOAT"): 1e-7,
    ("wav", "DOUBLE"): 1e-7,
    ("flac", "PCM_S8"): 1e-2,
    ("flac", "PCM_16"): 1e-4,
    ("flac", "PCM_24"): 1e-6,
    ("ogg", "VORBIS"): 0.1,
}


@pytest.mark.parametrize(("kind", "tolerance"), FORMATS.items(), ids=map("-".join, FORMATS))
def test_every_width(tmp_path, kind, tolerance):
    suffix, subtype = kind
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(16_000), 16_000, subtype=subtype)
    waveform = load_waveform(path)
    assert waveform.dtype == np.float32 and waveform.shape == (24_000,)
    np.testing.assert_allclose(waveform, tone(16_000), atol=tolerance)


def test_mp3(tmp_path):
    soundfile.write(tmp_path / "tone.mp3", tone(16_000), 16_000)
    waveform = load_waveform(tmp_path / "tone.mp3")
    assert abs(len(waveform) - 24_000) < 3000  # the format pads to whole frames
    assert loudest_hertz(waveform) == pytest.approx(TONE, abs=2)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000])
def test_every_rate(tmp_path, rate):
    soundfile.write(tmp_path / "tone.wav", tone(rate), rate, subtype="FLOAT")
    waveform = load_waveform(tmp_path / "tone.wav")
    assert waveform.dtype == np.float32
    assert len(waveform) == np.ceil(len(tone(rate)) * 16_000 / rate)
    np.testing.assert_allclose(waveform[500:23_500], tone(16_000)[500:23_500], atol=2e-3)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged(tmp_path, channels):
    gains = np.linspace(0.2, 1.0, channels)
    soundfile.write(tmp_path / "many.wav", tone(16_000)[:, None] * gains, 16_000, subtype="FLOAT")
    expected = tone(16_000) * gains.mean()
    np.testing.assert_allclose(load_waveform(tmp_path / "many.wav"), expected, atol=1e-6)


def other_noise(size: int = 24_000) -> np.ndarray:
    return (0.2 * np.random.default_rng(7).standard_normal(size)).astype(np.float32)


OPPOSITE = {(1, -1): 0, (-1, 1): 0, (0.8, -1): 0, (0, 1, -1, 0): 1, (0.5, -1, 0.5): 1}


@pytest.mark.parametrize(("gains", "heard"), OPPOSITE.items(), ids=map(str, OPPOSITE))
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_channels_that_cancel_out(tmp_path, monkeypatch, gains, heard, suffix):
    """The first loud one is heard, whatever the blocks and the span."""
    path = tmp_path / f"opposite.{suffix}"
    # Of noise, ogg keeps only how loud it is: its channels agree no more.
    sound = tone(16_000) if suffix == "ogg" else other_noise()
    soundfile.write(path, sound[:, None] * np.array(gains), 16_000)
    expected = soundfile.read(path, dtype="float32")[0][:, heard]
    assert expected.std() > 0.05
    np.testing.assert_array_equal(load_waveform(path), expected)
    np.testing.assert_array_equal(load_waveform(path.read_bytes()), expected)
    span = load_waveform(path, start=0.5, end=1)
    np.testing.assert_allclose(span, expected[8000:16_000], atol=1e-6)  # ogg's seek rounds
    monkeypatch.setattr("sari_jax.audio.files.BLOCK", 1000)
    np.testing.assert_array_equal(load_waveform(path), expected)


def test_opposite_channels_with_noise_of_their_own_and_at_another_rate(tmp_path):
    noise = np.random.default_rng(3).standard_normal((2, len(tone(44_100))))
    stereo = np.stack([tone(44_100), -tone(44_100)], axis=1) + 0.01 * noise.T
    soundfile.write(tmp_path / "noisy.wav", stereo, 44_100, subtype="FLOAT")
    soundfile.write(tmp_path / "alone.wav", stereo[:, 0], 44_100, subtype="FLOAT")
    heard, alone = (load_waveform(tmp_path / f"{name}.wav") for name in ("noisy", "alone"))
    np.testing.assert_array_equal(heard, alone)
    assert loudest_hertz(heard) == pytest.approx(TONE, abs=2)


def test_a_part_that_cancels_out_changes_nothing_of_the_rest(tmp_path):
    """Decided over the span that is read: no seam where the channels begin to agree."""
    first = other_noise()
    stereo = np.stack([first, np.concatenate([-first[:12_000], first[12_000:]])], axis=1)
    soundfile.write(tmp_path / "half.wav", stereo, 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(load_waveform(tmp_path / "half.wav"), stereo.mean(axis=1))


@pytest.mark.parametrize(
    "gains", [(1, 0), (0, 0.01), (1, -0.5), (1, 0, 0, 0, 0, 0), (1, 1, -1), (0, 0)]
)
def test_channels_that_do_not_cancel_out_are_averaged(tmp_path, gains):
    stereo = other_noise()[:, None] * np.array(gains)
    soundfile.write(tmp_path / "quiet.wav", stereo, 16_000, subtype="FLOAT")
    expected = stereo.astype(np.float32).mean(axis=1)
    np.testing.assert_array_equal(load_waveform(tmp_path / "quiet.wav"), expected)


def test_unrelated_channels_are_averaged(tmp_path):
    for channels in (2, 6, 16):
        noise = np.random.default_rng(channels).uniform(-1, 1, (4000, channels)).astype(np.float32)
        soundfile.write(tmp_path / "wide.wav", noise, 16_000, subtype="FLOAT")
        np.testing.assert_array_equal(load_waveform(tmp_path / "wide.wav"), noise.mean(axis=1))


def test_a_clip_just_over_the_limit_is_cut(tmp_path):
    """GTZAN's clips of 661,794 samples, at the limit of 30 s, and a stream that does not say how long it is."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(661_794)
    soundfile.write(tmp_path / "gtzan.wav", noise, 22_050, subtype="FLOAT")
    soundfile.write(tmp_path / "cut.wav", noise[:661_500], 22_050, subtype="FLOAT")
    heard = load_waveform(tmp_path / "gtzan.wav", longest=30)
    assert len(heard) == 480_000
    np.testing.assert_array_equal(heard, load_waveform(tmp_path / "cut.wav"))
    open_ended(tmp_path / "open.flac", 2.05)
    known = load_waveform(tmp_path / "open.flac", end=2)
    np.testing.assert_array_equal(load_waveform(tmp_path / "open.flac", longest=2), known)


def test_an_end_just_behind_the_sound(tmp_path):
    soundfile.write(tmp_path / "tone.flac", tone(16_000), 16_000)
    whole = load_waveform(tmp_path / "tone.flac", start=1)
    np.testing.assert_array_equal(load_waveform(tmp_path / "tone.flac", start=1, end=1.59), whole)


@pytest.mark.parametrize(
    ("start", "end"), [(None, 0.5), (0.25, None), (0.25, 1.0), (0, 1.5), (1, 1.25)]
)
def test_span(tmp_path, start, end):
    soundfile.write(tmp_path / "tone.flac", tone(16_000), 16_000, subtype="PCM_24")
    whole = load_waveform(tmp_path / "tone.flac")
    first, last = round(16_000 * (start or 0)), round(16_000 * (end or SECONDS))
    got = load_waveform(tmp_path / "tone.flac", start=start, end=end)
    np.testing.assert_array_equal(got, whole[first:last])


def test_only_the_span_is_read(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "long.wav", np.zeros(16_000 * 60), 16_000)
    asked = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile,
        "read",
        lambda file, count, **how: asked.append(count) or read(file, count, **how),
    )
    load_waveform(tmp_path / "long.wav", start=30, end=31)
    assert asked == [16_000]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 2.0),
        (-0.1, 1.0),
        (1.0, 1.0),
        (1.0, 0.5),
        (1.5, None),
        (None, 0.0),
        (float("nan"), 1.0),
        (0, float("inf")),
    ],
)
def test_span_outside(tmp_path, start, end):
    soundfile.write(tmp_path / "tone.wav", tone(16_000), 16_000)
    with pytest.raises(
        InputError, match=r"tone.wav: the span from .* does not lie within its 1.5 s"
    ):
        load_waveform(tmp_path / "tone.wav", start=start, end=end)


def test_missing(tmp_path):
    with pytest.raises(InputError, match="no such sound file"):
        load_waveform(tmp_path / "none.wav")


def test_directory(tmp_path):
    with pytest.raises(InputError, match="is a directory"):
        load_waveform(tmp_path)


def test_empty(tmp_path):
    (tmp_path / "empty.wav").touch()
    with pytest.raises(InputError, match="is empty"):
        load_waveform(tmp_path / "empty.wav")


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "xyz"])
def test_not_sound(tmp_path, suffix):
    path = tmp_path / f"text.{suffix}"
    path.write_bytes(b"This is no sound at all. " * 10)
    with pytest.raises(InputError, match="corrupt"):
        load_waveform(path)


@pytest.mark.parametrize("kept", [0.01, 0.5])
def test_cut_flac(tmp_path, kept):
    path = tmp_path / "cut.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 48_000), 16_000)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(InputError, match="corrupt"):
        load_waveform(path)


def test_no_samples(tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16_000)
    with pytest.raises(InputError, match="holds no samples"):
        load_waveform(tmp_path / "none.wav")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_not_finite(tmp_path, value):
    samples = np.zeros(100)
    samples[50] = value
    soundfile.write(tmp_path / "bad.wav", samples, 16_000, subtype="DOUBLE")
    with pytest.raises(InputError, match="not finite"):
        load_waveform(tmp_path / "bad.wav")


def test_one_sample_of_a_higher_rate(tmp_path):
    soundfile.write(tmp_path / "click.wav", np.ones(1), 48_000)
    assert len(load_waveform(tmp_path / "click.wav")) == 1


def wav_header(rate: int, channels: int, claimed: int, bits: int = 16) -> bytes:
    """A header that claims so many bytes of samples."""
    width = channels * bits // 8
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * width % 2**32, width, bits)
    riff = b"RIFF" + struct.pack("<I", min(claimed + 36, 2**32 - 1)) + b"WAVE"
    return riff + b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", claimed)


def test_blocks_are_resampled_as_one_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("sari_jax.audio.files.BLOCK", 1000)
    noise = np.random.default_rng(0).uniform(-1, 1, 44_100).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", noise, 44_100, subtype="FLOAT")
    whole = soxr.resample(noise, 44_100, 16_000, "HQ")  # as librosa's default does it
    np.testing.assert_array_equal(load_waveform(tmp_path / "noise.wav"), whole)


@pytest.mark.parametrize("kind", [bytes, io.BytesIO, open])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_bytes_and_open_files(tmp_path, kind, suffix):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(16_000), 16_000)
    source = open(path, "rb") if kind is open else kind(path.read_bytes())
    np.testing.assert_array_equal(
        load_waveform(source, start=0.25, end=1), load_waveform(path, start=0.25, end=1)
    )
    with pytest.raises(InputError, match="^shard 3, clip 4: the span"):
        load_waveform(source, end=9, name="shard 3, clip 4")


@pytest.mark.parametrize("data", [b"", b"RIFF", b"no sound at all" * 9])
def test_bad_bytes(data, capfd):
    with pytest.raises(InputError, match="^sound: "):
        load_waveform(data)
    assert "Traceback" not in capfd.readouterr().err


def test_longest(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "long.wav", tone(16_000, 3), 16_000)
    read = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", None)  # refused before
    with pytest.raises(
        InputError, match="long.wav: 3.0 s is longer than the limit of 2 s; split it"
    ):
        load_waveform(tmp_path / "long.wav", longest=2)
    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    assert len(load_waveform(tmp_path / "long.wav", longest=2, start=0.5, end=2.5)) == 32_000
    assert len(load_waveform(tmp_path / "long.wav", longest=3)) == 48_000


def open_ended(path, seconds: float) -> None:
    """A FLAC stream whose header leaves its length open, as an encoder writes it that cannot seek."""
    soundfile.write(path, tone(16_000, seconds), 16_000)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the 36 bits of STREAMINFO that count samples
    data[22:26] = bytes(4)
    path.write_bytes(data)


def test_a_stream_of_unknown_length(tmp_path):
    open_ended(tmp_path / "open.flac", 3)
    assert len(load_waveform(tmp_path / "open.flac")) == 48_000
    assert len(load_waveform(tmp_path / "open.flac", end=1)) == 16_000
    with pytest.raises(InputError, match="open.flac: the audio is longer than the limit of 2 s"):
        load_waveform(tmp_path / "open.flac", longest=2)


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_of_a_cut_stream_what_is_there(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 48_000), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 8_000 < len(load_waveform(path)) < 40_000


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2**31 - 1])
def test_absurd_rates(tmp_path, rate):
    (tmp_path / "odd.wav").write_bytes(wav_header(rate, 1, 2000) + bytes(2000))
    with pytest.raises(InputError, match=r"odd.wav: a rate of [\d,]+ Hz lies outside 1,000 to"):
        load_waveform(tmp_path / "odd.wav")


@pytest.mark.parametrize("rate", [1_000, 384_000])
def test_odd_rates(tmp_path, rate):
    soundfile.write(tmp_path / "odd.wav", tone(rate), rate)
    assert loudest_hertz(load_waveform(tmp_path / "odd.wav")) == pytest.approx(TONE, abs=2)


@pytest.mark.parametrize("channels", [1, 64, 1024])
def test_memory_is_bounded_whatever_the_header_claims(tmp_path, channels):
    (tmp_path / "big.wav").write_bytes(wav_header(48_000, channels, 2**32 - 40) + bytes(10**6))
    tracemalloc.start()
    assert len(load_waveform(tmp_path / "big.wav")) <= 10**6 // 6 // channels + 1
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()


def test_memory_is_that_of_one_channel_at_16_kilohertz(tmp_path):
    silence = np.zeros((192_000 * 10, 8), np.int16)  # 60 MB as float32
    soundfile.write(tmp_path / "wide.flac", silence, 192_000)
    del silence
    tracemalloc.start()
    assert len(load_waveform(tmp_path / "wide.flac")) == 160_000
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_far_too_loud(tmp_path):
    soundfile.write(tmp_path / "loud.wav", 1e7 * tone(16_000), 16_000, subtype="FLOAT")
    with pytest.raises(InputError, match=r"loud.wav: holds a sample of 5.0e\+06, beyond 1e\+06"):
        load_waveform(tmp_path / "loud.wav")


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, "line\nbreak", "\udc80.wav"])
def test_odd_names_stay_on_one_line(name):
    with pytest.raises(InputError, match="no such sound file") as caught:
        load_waveform(name)
    assert len(str(caught.value).encode().splitlines()) == 1
