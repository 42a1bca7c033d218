import pytest

import sari_jax as sari
from sari_jax.errors import InputError


def test_a_report_needs_a_place(tmp_path):
    with pytest.raises(InputError, match="a report needs a place"):
        sari.report(tmp_path)
    with pytest.raises(InputError, match="page.txt: a page's name ends in .html"):
        sari.report([tmp_path], tmp_path / "page.txt")
    with pytest.raises(InputError, match=str(tmp_path)):
        sari.report(tmp_path, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []
