import numpy as np
import soundfile

from sari_jax.audio.clips import load_clip
from sari_jax.data.ledger import Ledger
from sari_jax.data.pack import pack
from sari_jax.data.records import Clip, read_records


def test_a_packed_corpus_asks_the_same_about_the_same_sound(tmp_path, make_record):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.wav" for i in range(4)]
    for path in paths:
        soundfile.write(path, 0.1 * rng.standard_normal(4000), 16_000, subtype="PCM_16")
    clips = [Clip(str(path)) for path in paths]
    (tmp_path / "3.wav").write_bytes(b"RIFF")
    records = [
        make_record(id="a", audio=(clips[0],)),
        make_record(id="b", audio=(clips[1], clips[0])),
        make_record(id="c", audio=(clips[3],)),
        make_record(id="d", audio=(clips[2], clips[3])),
        make_record(id="e", audio=(Clip(clips[2].path, 0.1, 0.2),)),
    ]
    folder, ledger = tmp_path / "packed", Ledger()
    folder.mkdir()
    assert pack(folder, records, ledger, clips=2) == 4  # two questions share a clip
    assert ledger.report() == {"read": 5, "kept": 3, "dropped": {"sound unreadable": 2}}
    assert [dropped.where for dropped in ledger.dropped] == ["c", "d"]
    found = read_records(folder / "records.jsonl")
    assert [record.id for record in found] == ["a", "b", "e"]
    for record in found:
        whole = next(r for r in records if r.id == record.id)
        assert record.question == whole.question
        for clip, before in zip(record.audio, whole.audio, strict=True):
            expected = load_clip(before.path, before.start, before.end)
            np.testing.assert_array_equal(load_clip(clip.path), expected)
