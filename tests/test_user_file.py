import pytest

from sari_jax.errors import InputError
from sari_jax.user_file import failing_as, load, reason

# Whose annotations are looked up among the modules that are imported.
DATACLASS = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Limit:
    tokens: int = {tokens}
"""


def test_what_runs_is_what_stands_in_the_file_now(tmp_path):
    """Though it is as long as before, and was written in the same second; and nothing is left beside it."""
    path = tmp_path / "mine.py"
    for tokens in (10, 20, 40):
        path.write_text(DATACLASS.format(tokens=tokens))
        assert load(path, "mine", "the file").Limit().tokens == tokens
    assert [file.name for file in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.parametrize(
    ("text", "told"),
    [("def f(:", "SyntaxError"), ("import nothing_of_that_name", "ModuleNotFoundError"), ("1 / 0", "division by zero"),
     ("raise ValueError('one\\n  two\\n')", "ValueError: two$")],
)  # fmt: skip
def test_a_file_that_fails_says_so_in_one_line(tmp_path, text, told):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=f"^the file: .*{told}") as caught:
        load(path, "mine", "the file")
    assert len(str(caught.value).splitlines()) == 1


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match="^the file: no such file"):
        load(tmp_path / "absent.py", "absent", "the file")


def test_an_error_that_is_told_already_stays_as_it_is():
    with pytest.raises(InputError, match="^limit$"), failing_as("the file"):
        raise InputError("limit")


def test_an_error_that_says_nothing():
    assert reason(ValueError()) == "ValueError: "
