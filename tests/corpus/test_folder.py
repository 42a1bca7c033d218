import json

import pytest

from sari_jax.corpus.folder import write_corpus
from sari_jax.data.ledger import Ledger
from sari_jax.data.records import read_records
from sari_jax.errors import InputError


def test_a_folder_that_accounts_for_each_input(tmp_path, make_record):
    ledger = Ledger()
    ledger.keep(2)
    ledger.drop("a:3", "bad line", "<odd>")
    records = [make_record(id="a"), make_record(id="b")]
    report = write_corpus(tmp_path / "out", ledger, records, seed=3)
    assert report == {"read": 3, "kept": 2, "dropped": {"bad line": 1}, "seed": 3}
    assert json.loads((tmp_path / "out/report.json").read_text()) == report
    found = read_records(tmp_path / "out/records.jsonl", check_audio=False)
    assert [record.id for record in found] == ["a", "b"]
    (dropped,) = (tmp_path / "out/dropped.jsonl").read_text().splitlines()
    assert json.loads(dropped) == {"where": "a:3", "reason": "bad line", "detail": "<odd>"}
    assert not (tmp_path / "out/captions.jsonl").exists()
    with pytest.raises(InputError, match="not empty"):
        write_corpus(tmp_path / "out", ledger)
