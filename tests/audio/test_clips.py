import numpy as np
import pytest
import soundfile

from sari_jax.audio.clips import duration, load_clip, measure
from sari_jax.audio.files import load_waveform
from sari_jax.audio.packed import writing
from sari_jax.audio.spans import Fit, TooLong
from sari_jax.errors import InputError


@pytest.fixture
def names(tmp_path):
    """A loose file and the same sound in a shard."""
    noise = np.round(3000 * np.random.default_rng(0).standard_normal(24_000)) / 32768
    soundfile.write(tmp_path / "a.wav", noise, 16_000, subtype="PCM_16")
    with writing(tmp_path, 2) as shards:
        return str(tmp_path / "a.wav"), str(
            tmp_path / shards.add(load_waveform(tmp_path / "a.wav"), 16_000)
        )


def test_loose_and_packed_are_the_same(names):
    for span in ((None, None), (0.25, None), (None, 0.5), (0.25, 1.0)):
        loose, packed = (load_clip(name, *span) for name in names)
        np.testing.assert_array_equal(loose, packed)
        assert [duration(name, *span) for name in names] == [len(loose) / 16_000] * 2


def test_what_is_wrong_is_told_of_the_clip(names, tmp_path):
    for name in names:
        with pytest.raises(
            InputError, match="the span from 1 to 9 s does not lie within its 1.5 s"
        ) as e:
            load_clip(name, 1.0, 9.0)
        assert str(e.value).startswith(name)
    for name in ("b.wav", "b.arrayrecord#0"):
        with pytest.raises(InputError, match="b\\."):
            duration(str(tmp_path / name))


def test_a_head_tells_what_will_be_heard(names):
    for name in names:
        spans = [(0.25, None, 9.0), (0.25, 1.55, 9.0), (0.0, 1.5, 1.45), (None, None, 1.41)]
        fits = [Fit.EXACT, Fit.CLIPPED, Fit.CUT, Fit.CUT]
        for (start, end, longest), fit in zip(spans, fits, strict=True):
            heard = load_clip(name, start, end, longest=longest)
            assert measure(name, start, end, longest=longest) == (len(heard) / 16_000, fit)
        assert duration(name) == 1.5
        for span, told in (((1.0, 9.0), "does not lie"), ((2.0, None), "does not lie")):
            with pytest.raises(InputError, match=told):
                measure(name, *span)
        with pytest.raises(TooLong, match="1.5 s is longer than the limit of 1 s"):
            measure(name, longest=1)


def test_of_a_stream_that_does_not_say_its_length_it_is_counted(tmp_path):
    """A FLAC whose 36 bits that count samples are 0, as an encoder writes it that cannot seek."""
    path = tmp_path / "open.flac"
    soundfile.write(path, np.zeros(24_000), 16_000)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert measure(str(path), 0.5) == (1.0, Fit.EXACT) and duration(str(path)) == 1.5


def test_an_empty_sound_is_told_by_its_head(tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16_000)
    with pytest.raises(InputError, match="none.wav: holds no samples"):
        measure(str(tmp_path / "none.wav"))
