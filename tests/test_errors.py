import sys

import pytest

from sari_jax.errors import InputError, one_line, require


def test_a_missing_module_is_named_with_its_extra(monkeypatch):
    require("sari report", "report", "json")
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(InputError) as caught:
        require("sari report", "report", "json", "plotly", "no_such_module")
    assert str(caught.value) == (
        "sari report needs plotly, no_such_module; pip install 'sari_jax[report]',"
        " or in a checkout pip install -e '.[report]'"
    )


@pytest.mark.parametrize(
    "text, line",
    [
        ("dog.wav: 31 s", "dog.wav: 31 s"),
        ("a\nb", r"a\nb"),
        ("half \udcff", r"half \udcff"),
        ("abcdefghij", "abcd ... ij"),
    ],
)
def test_one_line(text, line):
    assert one_line(text, longest=8 if text.startswith("abc") else 1000) == line
