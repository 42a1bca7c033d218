"""Rows of JSON and CSV files: what cannot be read is told with its place, and nothing else is lost."""

import pytest

from sari_jax.corpus.sources.rows import clip, csv_rows, json_rows, text, texts
from sari_jax.data.ledger import Drop
from sari_jax.errors import InputError


def read(rows) -> list:
    """Rows, and the reason in place of what is none."""
    return [row.reason if isinstance(row, Drop) else row for _, row in rows]


@pytest.fixture
def write(tmp_path):
    def write(content: bytes | str):
        path = tmp_path / "rows"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_json_lines(write):
    path = write(
        b'\xef\xbb\xbf{"a": 1}\r\n\n[2]\n{"a": \n{"a": "\xff"}\n{"a": "\\ud83d"}\n{"a": 3}'
    )
    bad = "bad line"
    assert read(json_rows(path)) == [{"a": 1}, bad, bad, bad, bad, {"a": 3}]
    assert [where for where, _ in json_rows(path)] == [f"{path}:{n}" for n in (1, 3, 4, 5, 6, 7)]


def test_a_json_list(write):
    path = write('\ufeff\n [{"a": 1}, 2, {"a": "\\ud83d"}, {"a": "Où"}]')
    assert read(json_rows(path)) == [{"a": 1}, "bad line", "bad line", {"a": "Où"}]
    assert [where for where, _ in json_rows(path)] == [f"{path}[{n}]" for n in range(4)]


@pytest.mark.parametrize("content", ['[{"a": 1},', "[" * 100_000, b'[{"a": "\xff"}]'])
def test_a_list_that_is_not_json(write, content):
    with pytest.raises(InputError, match=r"starts with '\[' but is not valid JSON"):
        list(json_rows(write(content)))


def test_an_empty_file(write):
    assert read(json_rows(write(""))) == [] == read(csv_rows(write(""), ["a"]))


def test_csv(write):
    path = write(b'\xef\xbb\xbfa,b\n1, "x, ""y"" z"\n\n2\n3,\xff\n4,"q"r\n5, c \n6,"open\n7,d')
    rows = list(csv_rows(path, ["b", "a"]))
    bad = "bad line"
    assert read(rows) == [
        {"a": "1", "b": 'x, "y" z'},
        bad,
        bad,
        bad,
        {"a": "5", "b": "c"},
        bad,
        {"a": "7", "b": "d"},
    ]
    assert [where for where, _ in rows] == [f"{path}:{n}" for n in range(2, 10) if n != 3]


def test_csv_without_a_header(write):
    path = write("# made by hand\n#\n1,2\n# 3\n4,5\n")
    assert read(csv_rows(path, (), ["a", "b"])) == [{"a": "1", "b": "2"}, {"a": "4", "b": "5"}]


def test_csv_without_a_column(write):
    with pytest.raises(InputError, match="has no column c, d, but a, b"):
        list(csv_rows(write("a,b\n1,2\n"), ["a", "c", "d"]))


@pytest.mark.parametrize("rows", [json_rows, lambda path: csv_rows(path, [])])
def test_a_file_that_cannot_be_read(tmp_path, rows):
    with pytest.raises(InputError, match="cannot be read"):
        list(rows(tmp_path / "absent"))


def test_text():
    row = {"a": " x ", "n": 3, "f": 0.5, "none": None, "flag": True, "blank": " ", "list": []}
    assert text(row, "a") == "x" and text(row, "n") == "3" and text(row, "f") == "0.5"
    assert text(row, "absent", "none", "a") == "x"
    for name in ("flag", "blank", "list"):
        with pytest.raises(Drop, match=f"{name} must be text"):
            text(row, name)
    with pytest.raises(Drop, match="lacks none or absent"):
        text(row, "none", "absent")


def test_texts():
    assert texts({"a": [" x", "y"]}, "a") == ["x", "y"]
    for value in ("xy", None, ["x", 1], ["x", " "], {"x": "y"}):
        with pytest.raises(Drop, match="a must be a list of texts"):
            texts({"a": value}, "a")


def test_a_clip_is_found_by_its_name_with_or_without_ending(tmp_path):
    for name in ("one.flac", "two.v1", "three.wav"):
        (tmp_path / name).write_bytes(b"")
    assert clip(tmp_path, "one") == [{"path": "one.flac"}]
    assert clip(tmp_path, "two.v1") == [{"path": "two.v1"}]
    assert clip(tmp_path, "absent", "three", "one") == [{"path": "three.wav"}]
    assert clip(tmp_path, "absent", "x") == [{"path": "absent.wav"}]
    assert clip(tmp_path, "absent.MP3") == [{"path": "absent.MP3"}]
    assert clip(tmp_path, "x" * 10_000) == [{"path": "x" * 10_000 + ".wav"}]
    assert clip(tmp_path, "a\0b")
