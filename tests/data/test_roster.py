import dataclasses

import pytest

from sari_jax.data.records import Clip
from sari_jax.data.roster import FILE, enrol, match, read_roster, write_roster
from sari_jax.errors import InputError


@pytest.fixture
def records(make_record):
    return [make_record(id=f"q{i}", question=f"Which {i}?", pass_rate=i / 4) for i in range(5)]


def test_a_roster_comes_back(records, tmp_path):
    roster = enrol(records, [100, 200, 300, 400, 500])
    assert read_roster(tmp_path) is None
    write_roster(tmp_path, roster)
    assert read_roster(tmp_path) == roster
    assert [entry.pass_rate for entry in roster] == [0, 0.25, 0.5, 0.75, 1]
    assert [entry.length for entry in roster] == [100, 200, 300, 400, 500]


def test_records_are_found_whatever_their_order_and_whatever_was_mended(records):
    roster = enrol(records)
    mended = dataclasses.replace(records[3], question="Which, now?")
    new = dataclasses.replace(records[0], id="new")
    found = match(roster, [new, mended, *records[:2], records[4]], "some.jsonl")
    assert found.records == [records[0], records[1], None, mended, records[4]]
    assert (found.gone, found.changed, found.new) == (1, 1, 1)


def test_what_says_nothing_of_the_question_is_no_change(records):
    clips = [Clip(f"/elsewhere/{record.audio[0].path}") for record in records]
    moved = [
        dataclasses.replace(record, audio=(clip,), pass_rate=0.5)
        for record, clip in zip(records, clips, strict=True)
    ]
    assert match(enrol(records), moved, "some.jsonl").changed == 0


@pytest.mark.parametrize("change", [dict(chain_free="else"), dict(audio=(Clip("other.wav"),))])
def test_another_chain_or_clip_is_a_change(records, change):
    others = [dataclasses.replace(record, **change) for record in records]
    with pytest.raises(InputError, match="it holds 0 of the 5 questions of this run unchanged"):
        match(enrol(records), others, "some.jsonl")


@pytest.mark.parametrize("kept", [0, 2, 3])
def test_less_than_half_of_a_roster_is_another_corpus(records, kept):
    roster, there = enrol(records), records[:kept]
    if kept == 3:
        assert match(roster, there, "some.jsonl").gone == 2
        return
    with pytest.raises(
        InputError, match=f"some.jsonl: it holds {kept} of the 5 questions .* another corpus"
    ):
        match(roster, there, "some.jsonl")


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"id": "q"}', '{"id": "q", "digest": "d", "source": "s", "x": 1}']
)
def test_a_roster_that_was_damaged_is_refused(records, tmp_path, line):
    write_roster(tmp_path, enrol(records))
    path = tmp_path / FILE
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=f"{FILE}:6: not"):
        read_roster(tmp_path)
