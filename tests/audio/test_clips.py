import numpy as np
import pytest
import soundfile

from sari_jax.audio.clips import duration, load_clip
from sari_jax.audio.files import load_waveform
from sari_jax.audio.packed import writing
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
