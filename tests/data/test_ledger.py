from sari_jax.data.ledger import Drop, Ledger, reason_of


def test_every_input_is_kept_or_dropped_once():
    ledger = Ledger()
    ledger.keep(3)
    ledger.drop("a.jsonl:2", "bad line", "not JSON")
    ledger.drop("r7", "duplicate", "of r1")
    ledger.drop("r9", "duplicate", "of r2")
    assert ledger.report() == {"read": 6, "kept": 3, "dropped": {"duplicate": 2, "bad line": 1}}


def test_a_drop_tells_its_detail_and_keeps_its_reason():
    error = Drop("sound file missing", "sound file a.wav is missing")
    assert str(error) == "sound file a.wav is missing" and str(Drop("empty")) == "empty"
    assert reason_of(error, "bad line") == "sound file missing"
    assert reason_of(ValueError("odd"), "bad line") == "bad line"
