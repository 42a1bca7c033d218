import pytest

import sari_jax as sari
from sari_jax.errors import InputError


def test_a_report_needs_a_place(tmp_path):
    with pytest.raises(
        InputError, match=r"place: out \(--out FILE.html\) for the page, or pictures \(--png DIR\)"
    ):
        sari.report(tmp_path)
    with pytest.raises(
        InputError, match=r"page.txt: a page's name ends in .html; name another out \(--out\)"
    ):
        sari.report([tmp_path], tmp_path / "page.txt")
    with pytest.raises(InputError, match=str(tmp_path)):
        sari.report(tmp_path, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []
