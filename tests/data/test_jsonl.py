import dataclasses
import json

import pytest

from sari_jax.data.jsonl import json_object, plain, read_items, write_items
from sari_jax.data.ledger import Drop, Ledger
from sari_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Item:
    id: str
    parts: tuple["Item", ...] = ()
    note: str | None = None


def parse(line: str) -> Item:
    raw = json_object(line)
    if raw.get("gone"):
        raise Drop("gone", "it is gone")
    return Item(raw["id"])


def test_bad_lines_are_listed_with_place_and_reason(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"id": "a"}\n\n{"id": "b"\n{"gone": 1}\n\xff\n{"id": "a"}\n{"id": "c\xe2\x80\xa8"}'
    )
    ledger = Ledger()
    items = read_items(path, parse, max_bad_fraction=1.0, ledger=ledger)
    assert [item.id for item in items] == ["a", "c\u2028"]
    found = [(d.where.rpartition(":")[2], d.reason) for d in ledger.dropped]
    assert found == [("3", "bad line"), ("4", "gone"), ("5", "bad line"), ("6", "bad line")]
    assert "occurs twice" in ledger.dropped[-1].detail


def test_too_many_bad_lines_stop_the_run(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "a"}\n{"gone": 1}\n')
    with pytest.raises(InputError, match=r"a.jsonl:2: it is gone \(1 of 2 lines are bad, 40.0%"):
        read_items(path, parse, max_bad_fraction=0.4)
    assert len(read_items(path, parse, max_bad_fraction=0.5)) == 1
    assert "1 of 2 lines skipped" in capsys.readouterr().err
    with pytest.raises(InputError, match="no such file"):
        read_items(tmp_path / "b.jsonl", parse)


@pytest.mark.parametrize("line", ["[1]", "nul", "[" * 100_000, '{"a": "\\ud800"}'])
def test_what_is_no_object(line):
    with pytest.raises(ValueError):
        json_object(line)


def test_what_is_written_is_read_again(tmp_path):
    items = [Item("a", (Item("b", note="ü\n"),)), Item("c")]
    write_items(tmp_path / "a.jsonl", items)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines == [plain(item) for item in items]
    assert lines[0] == {"id": "a", "parts": [{"id": "b", "parts": [], "note": "ü\n"}]}
    with pytest.raises(InputError, match="cannot be written"):
        write_items(tmp_path / "absent" / "a.jsonl", items)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
