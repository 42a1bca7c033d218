"""docs/contributing.md: its figure shows the layers as they are, and what it names is where it says."""

import re
from pathlib import Path

from figure import FIGURE, current

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "contributing.md").read_text()


def test_the_figure_shows_the_layers():
    assert FIGURE.read_text() == current(), "run: python tests/figure.py"


def test_every_table_of_names_stands_in_its_file():
    """Of "`NAME` in `path`": the file defines or holds that name."""
    pairs = re.findall(r"`([A-Z_]+)` in `(sari_jax/[\w./]+\.py)`", PAGE)
    assert len(pairs) >= 6
    lost = [
        f"{name} in {path}"
        for name, path in pairs
        if not re.search(rf"^{name}\b.*[={{]", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert not lost, lost
