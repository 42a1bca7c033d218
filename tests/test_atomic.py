import os

import pytest

from sari_jax.atomic import new_directory, write_text
from sari_jax.errors import InputError


def test_nothing_is_left_after_an_exception(tmp_path):
    with pytest.raises(RuntimeError), new_directory(tmp_path / "out") as aside:
        (aside / "half").write_text("written")
        assert not (tmp_path / "out").exists()
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_a_new_directory_appears_whole(tmp_path):
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "new", tmp_path / "deep" / "er"):
        with new_directory(out) as aside:
            (aside / "file").write_text("x")
        assert [path.name for path in out.iterdir()] == ["file"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "empty", "new"]


def test_what_a_killed_process_of_our_number_left_is_in_nobodys_way(tmp_path):
    stale = tmp_path / f".out.{os.getpid()}.partial"
    stale.mkdir()
    (stale / "half").write_text("")
    with new_directory(tmp_path / "out") as aside:
        (aside / "file").write_text("x")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written .*; name another --out"):
        with new_directory(tmp_path / "file" / "out"):
            pass


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "é")
    assert path.read_bytes() == "é".encode()
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud800")
    with pytest.raises(OSError):
        write_text(tmp_path / "absent" / "a.json", "")
    assert path.read_text(encoding="utf-8") == "é" and list(tmp_path.iterdir()) == [path]
