"""AudioSet: captions still to be written, with the names of labels."""

import pytest

from experiments.samples import write_sample
from sari_jax.corpus.captions import Caption
from sari_jax.corpus.sources import audioset
from sari_jax.corpus.sources.source import build
from sari_jax.data.records import Clip
from sari_jax.errors import InputError


def test_the_sample(built):
    found = built("audioset")
    licence = audioset.SOURCE.licence

    def caption(name: str, clip: str, task: str, *labels: str) -> Caption:
        audio = (Clip(str(found.sounds / clip)),)
        return Caption(f"audioset-{name}", audio, task, "audioset", licence, None, labels)

    captions = [
        caption("-0RWZT-miFs_420", "-0RWZT-miFs.wav", "sound", "Keys jangling", "Car"),
        caption("0aBcDeFgHiJ_30", "Y0aBcDeFgHiJ.flac", "speech", "Speech"),
        caption("1aBcDeFgHiJ_0", "1aBcDeFgHiJ_0_10.wav", "music", "Music", "Speech"),
        caption("2aBcDeFgHiJ_50", "2aBcDeFgHiJ_50000_60000.flac", "sound", "Dog"),
    ]
    assert found.captions == {caption.id: caption for caption in captions}
    assert not found.records
    assert found.drops == [
        (8, "sound file missing"),
        (9, "unknown label"),
        (10, "bad field"),
        (11, "bad line"),
    ]
    assert found.report["read"] == 8


def test_without_the_names_of_labels(tmp_path):
    path, sounds = write_sample("audioset", tmp_path / "given")
    path.with_name("class_labels_indices.csv").unlink()
    with pytest.raises(InputError, match="class_labels_indices.csv: no such file; put"):
        build(audioset.SOURCE, tmp_path / "out", path=path, audio_root=sounds)


@pytest.mark.parametrize("row", ["v, x, 10, /m/0k4j", "v, nan, 10, /m/0k4j", ", 0, 10, /m/0k4j"])
def test_a_segment_that_is_none(tmp_path, row):
    path, _ = write_sample("audioset", tmp_path / "given")
    path.write_text(row + "\n")
    ((_, drop),) = audioset.read(path)
    assert drop.reason == "bad field"
