import itertools

import numpy as np
import pytest
import soundfile

from sari_jax.audio.packed import writing
from sari_jax.data.lengths import audio_lengths, by_length
from sari_jax.data.processor import Shapes
from sari_jax.data.records import Clip
from sari_jax.data.styles import STYLES
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
    sizes = audio_lengths(records, (0.8, 1.6, 2.4, 3.2), 30)
    assert (sizes / 16_000).tolist() == pytest.approx([0.8, 1.6, 3.2, 0.8, 0.8], abs=0.04)
    with pytest.raises(InputError, match="absent.wav"):
        audio_lengths([make_record(audio=(Clip("absent.wav"),))], (1.0,), 30)
    with pytest.raises(InputError, match="b.wav: a clip of 1.5 s does not fit"):
        audio_lengths(records, (0.8,), 30)


def test_the_bucket_is_that_of_a_batch(tmp_path, make_record, nano_processor):
    """Where a clip just fits a bucket but for the silence behind it, it takes the next."""
    for i, samples in enumerate((63_000, 63_360, 63_361, 64_000, 64_001)):
        soundfile.write(tmp_path / f"{i}.wav", np.zeros(samples), 16_000)
        record = make_record(audio=(Clip(str(tmp_path / f"{i}.wav")),))
        example = nano_processor.question(record, STYLES["direct"])
        batch = nano_processor.collate([example], Shapes())
        (size,) = audio_lengths([record], Shapes().audio_seconds, nano_processor.seconds)
        assert size == batch.prompts.waveforms.shape[-1]


def test_a_clip_just_over_the_limit_has_its_length(tmp_path, make_record, nano_processor):
    """As it is cut to it when it is heard."""
    soundfile.write(tmp_path / "gtzan.wav", np.zeros(661_794), 22_050)
    records = [
        make_record(audio=(Clip(str(tmp_path / "gtzan.wav"), *span),))
        for span in ((), (None, 30.05))
    ]
    buckets, limit = Shapes().audio_seconds, nano_processor.seconds
    assert audio_lengths(records, buckets, limit).tolist() == [480_000, 480_000]
    for record in records:
        example = nano_processor.question(record, STYLES["direct"])
        assert [len(waveform) for waveform in example.waveforms] == [480_000]


def spans(make_record, seconds):
    """Records that hear so many seconds of a file each, of which nothing needs to be read."""
    return [make_record(audio=(Clip("long.wav", 1.0, 1.0 + s),)) for s in seconds]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_no_other_batches_hold_less_audio(make_record, seed, rows):
    rng = np.random.default_rng(seed)
    seconds = rng.choice([1.0, 2.0, 3.5, 9.0, 9.5, 28.0], 6).tolist()
    batches = by_length(spans(make_record, seconds), rows)
    assert sorted(itertools.chain(*batches)) == list(range(6))
    assert [len(batch) for batch in batches] == [rows] * (6 // rows) + [6 % rows] * bool(6 % rows)

    def padded(order) -> float:
        return sum(rows * max(order[i : i + rows]) for i in range(0, 6, rows))

    ours = sum(rows * max(seconds[place] for place in batch) for batch in batches)
    assert ours == min(map(padded, itertools.permutations(seconds)))


def test_batches_begin_with_many_and_long_clips_and_keep_the_order_of_equals(make_record, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    records = spans(make_record, [2.0, 9.0, 2.0, 5.0])
    bad = make_record(audio=(Clip(str(tmp_path / "bad.wav")),))
    absent = make_record(audio=(Clip("absent.wav"),))
    pair = make_record(audio=(Clip("long.wav", 0.0, 1.0), Clip("long.wav", 1.0, 2.0)))
    assert by_length([bad, *records, absent, pair], 3) == [(6, 2, 4), (1, 3, 0), (5,)]
    assert by_length([], 3) == []
