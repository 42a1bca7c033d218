import numpy as np
import pytest
import soundfile

from sari_jax.audio.packed import writing
from sari_jax.data.lengths import sound_lengths
from sari_jax.data.records import Clip
from sari_jax.errors import InputError


def test_the_longest_clip_decides(tmp_path, make_record):
    for name, seconds in (("a", 0.5), ("b", 1.5)):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(int(8000 * seconds)), 8000)
    with writing(tmp_path, 3) as shards:
        packed = shards.add(np.zeros(40_000, np.float32), 16_000)
    clips = {name: Clip(str(tmp_path / name)) for name in ("a.wav", "b.wav", packed)}
    a, b, c = clips.values()
    records = [
        make_record(audio=audio)
        for audio in ((a,), (b, a), (c,), (Clip(c.path, 0.5, 1.0),), (Clip(b.path, 0.75),))
    ]
    assert sound_lengths(records, (0.5, 1.0, 2.0)).tolist() == [0, 2, 3, 0, 1]
    with pytest.raises(InputError, match="absent.wav"):
        sound_lengths([make_record(audio=(Clip("absent.wav"),))], (1.0,))
