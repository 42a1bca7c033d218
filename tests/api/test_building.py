import pytest

import sari_jax as sari
from sari_jax.data.records import write_records
from sari_jax.errors import InputError


def test_a_corpus_of_that_size(tmp_path):
    summary = sari.starter_corpus(tmp_path / "corpus", train=3, validation=0, test=2)
    assert {name: part["questions"] for name, part in summary["splits"].items()} == {
        "train": 3,
        "validation": 0,
        "test": 2,
    }
    assert len(sari.read_records(tmp_path / "corpus" / "train.jsonl")) == 3


def test_captions_that_a_projector_cannot_start_from(make_record, tmp_path):
    path = tmp_path / "records.jsonl"
    (tmp_path / "dog.wav").write_bytes(b"RIFF")
    for records, reason in (
        ([make_record(chain_structured=None)], "record r1 has no caption"),
        ([make_record(), make_record(id="r2")], "all of 2 captions are the same"),
    ):
        write_records(path, records)
        with pytest.raises(InputError, match=reason):
            sari.assemble_model("nano", tmp_path / "out", captions=path)
    with pytest.raises(InputError, match="model 'nanoo' is unknown"):
        sari.assemble_model("nanoo", tmp_path / "out")
    assert not (tmp_path / "out").exists()
