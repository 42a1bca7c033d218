"""Commands that README and docs show can be given as they are written, and their links lead somewhere."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from sari_jax.cli.main import parse
from sari_jax.train.config import freeze
from sari_jax.train.flags import read_config_file

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "experiments" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
BLOCK = re.compile(r"^```\w*\n(.*?)^```|((?:^    .*\n)+)", re.MULTILINE | re.DOTALL)
OWN = "tpu_scripts/slice.env"  # the user's
FORM = re.compile(r"[\[\]|]|\.\.\.")  # of lines that show what may be given, not what to give


def commands(page: Path):
    """The words of each `sari` command in a page's blocks of code, continued lines joined."""
    for fenced, indented in BLOCK.findall(page.read_text()):
        for line in (fenced or indented).replace("\\\n", "").splitlines():
            found = re.match(r"\s*(?:\S*/)?sari (.*)", line)
            if found and not FORM.search(line.partition(" #")[0]):
                yield shlex.split(found[1], comments=True)


def told(config: Path):
    """Those of a config's docstring, of which continued lines are joined already."""
    docstring = ast.get_docstring(ast.parse(config.read_text()), clean=False) or ""
    return [shlex.split(line) for line in re.findall(r"^    sari (.*)$", docstring, re.MULTILINE)]


CONFIGS = sorted((ROOT / "configs").glob("*.py"))
COMMANDS = [(page.stem, words) for page in PAGES for words in commands(page)]
COMMANDS += [(config.stem, words) for config in CONFIGS for words in told(config)]


def test_there_are_some():
    assert len(COMMANDS) > 70 and {"README", "data", "tpu", "scale"} <= {
        page for page, _ in COMMANDS
    }


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=[f"{p}: {' '.join(w)}" for p, w in COMMANDS]
)
def test_a_command_can_be_given(page, words):
    args = parse(words)
    config = ROOT / (getattr(args, "config", None) or "none")
    if args.command in ("train", "compile") and config.is_file():
        freeze(read_config_file(str(config), args.overrides))
    assert config.is_file() or "configs/" not in str(config), f"{config} is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
    for path in re.findall(
        r"`((?:sari_jax|tests|configs|experiments|tpu_scripts|gpu_scripts)/[\w./]+)`",
        page.read_text(),
    ):
        assert "NAME" in path or path == OWN or (ROOT / path).exists(), path
    for name in re.findall(r"python -m (experiments\.\w+)", page.read_text()):
        assert (ROOT / f"{name.replace('.', '/')}.py").exists(), name
