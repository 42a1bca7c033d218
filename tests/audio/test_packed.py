import numpy as np
import pytest
import soundfile

from sari_jax.audio.clips import load_clip
from sari_jax.audio.packed import packed_clip, shard_of, writing
from sari_jax.errors import InputError

RATE = 16_000


@pytest.fixture
def clips():
    rng = np.random.default_rng(0)
    return [np.round(3000 * rng.standard_normal(1000 + 100 * i)) / 32768 for i in range(7)]


@pytest.fixture
def names(tmp_path, clips):
    with writing(tmp_path, 3) as shards:
        return [str(tmp_path / shards.add(clip.astype(np.float32), RATE)) for clip in clips]


def test_each_clip_is_read_alone_and_bit_for_bit(tmp_path, clips, names):
    assert len(list(tmp_path.glob("*.arrayrecord"))) == 3
    for i in (6, 0, 3, 2, 5):
        samples, rate = soundfile.read(packed_clip(*shard_of(names[i])))
        assert rate == RATE
        np.testing.assert_array_equal(samples, clips[i])
        np.testing.assert_array_equal(load_clip(names[i]), clips[i].astype(np.float32))


def test_a_span_of_a_packed_clip(clips, names):
    span = load_clip(names[1], start=0.01, end=0.05)
    np.testing.assert_array_equal(span, clips[1][160:800].astype(np.float32))


def test_what_is_no_packed_clip():
    for path in ("a.flac", "a#1.flac", "a.arrayrecord", "a.arrayrecord#x", "a.arrayrecord#"):
        assert shard_of(path) is None
    assert shard_of("b/a.arrayrecord#12") == ("b/a.arrayrecord", 12)


def test_shards_that_cannot_be_read(tmp_path, names):
    file, number = shard_of(names[0])
    with pytest.raises(InputError, match="has no clip 9, only 3 clips"):
        packed_clip(file, 9)
    with pytest.raises(InputError, match="no such shard"):
        packed_clip(str(tmp_path / "b.arrayrecord"), 0)
    for name, content in (
        ("junk", b"x" * 4096),
        ("cut", (tmp_path / "clips-00001.arrayrecord").read_bytes()[:-4000]),
        ("empty", b""),
    ):
        path = tmp_path / f"{name}.arrayrecord"
        path.write_bytes(content)
        with pytest.raises(InputError, match=name):
            packed_clip(str(path), 0)
