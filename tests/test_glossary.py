"""The glossary has the terms that a newcomer meets, each with a file that exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "glossary.md").read_text()
# "- **term** (other words): ... File: `path`.", with indented lines that go on.
ENTRY = re.compile(r"^- \*\*(.+?)\*\*(.*(?:\n  .+)*)", re.MULTILINE)
ENTRIES = {term: " ".join(text.split()) for term, text in ENTRY.findall(PAGE)}


def test_it_has_the_terms():
    assert len(ENTRIES) == len(ENTRY.findall(PAGE)) >= 40


def test_every_term_ends_with_a_file_that_exists():
    lost = []
    for term, text in ENTRIES.items():
        named = re.search(r" File: `([\w./]+)`\.$", text)
        if not named or not (ROOT / named[1]).is_file():
            lost.append(f"{term}: {text[-60:]}")
    assert not lost, "\n".join(lost)


def test_entries_are_short():
    """One sentence, or two or three short ones, before the file."""
    long = [term for term, text in ENTRIES.items() if len(text.partition(" File: ")[0]) > 220]
    assert not long, long


def test_the_new_settings_and_metrics_exist():
    """The table of names that changed follows the settings and the reserved names of metrics."""
    from sari_jax.report.charts import PARTS
    from sari_jax.rl.rewards.registry import RESERVED
    from sari_jax.train.config import defaults

    for kind, old, new in re.findall(r"^\| (setting|metric) \| `(.+?)` \| `(.+?)` \|", PAGE, re.M):
        if kind == "setting":
            group, name = new.split(".")
            settings = defaults()[group]
            assert name in settings and old.partition(".")[2] not in settings, (old, new)
        elif new.startswith("seconds_"):
            assert new.removeprefix("seconds_") in PARTS, (old, new)
        else:
            assert new in RESERVED and old not in RESERVED, (old, new)
