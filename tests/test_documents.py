"""Commands that README and docs show can be given as they are written, and their links lead somewhere."""

import ast
import re
import shlex
from pathlib import Path

from sari_jax.cli.main import parse
from sari_jax.errors import InputError
from sari_jax.scale.work import Work
from sari_jax.train.config import Run, freeze
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


def commands_of_config(config: Path) -> list[list[str]]:
    """The words of each `sari` command in a config's docstring, where continued lines are joined already."""
    docstring = ast.get_docstring(ast.parse(config.read_text()), clean=False) or ""
    return [shlex.split(line) for line in re.findall(r"^    sari (.*)$", docstring, re.MULTILINE)]


CONFIGS = sorted((ROOT / "configs").glob("*.py"))
COMMANDS = [(page.stem, words) for page in PAGES for words in commands(page)]
COMMANDS += [(config.stem, words) for config in CONFIGS for words in commands_of_config(config)]


def refusal(words: list[str]) -> str | None:
    """Returns why a command cannot be given, or None if it can. Files of the user's are not looked for."""
    try:
        args = parse(words)
        config = getattr(args, "config", None) or ""
        if config.startswith("configs/"):
            config = f"{ROOT}/{config}"
        elif re.search(r"[./]", config) or config.isupper():
            config = ""
        if config:
            kind = Work if args.command == "bench" else Run
            freeze(read_config_file(config, args.overrides), kind)
    except SystemExit:
        return "no such words; see the usage above"
    except InputError as error:
        return str(error)
    return None


def dead_ends(page: Path) -> list[str]:
    """Returns the targets of a page's links that do not exist."""
    text = page.read_text()
    links = re.findall(r"\]\((?!https?://)([^)#]+)", text)
    folders = "sari_jax|tests|configs|experiments|tpu_scripts|gpu_scripts"
    paths = re.findall(rf"`((?:{folders})/[\w./]+)`", text)
    modules = re.findall(r"python -m (experiments\.\w+)", text)
    return [
        *(link for link in links if not (page.parent / link).exists()),
        *(p for p in paths if "NAME" not in p and p != OWN and not (ROOT / p).exists()),
        *(name for name in modules if not (ROOT / f"{name.replace('.', '/')}.py").exists()),
    ]


def test_there_are_some():
    assert len(COMMANDS) > 70 and {"README", "data", "tpu", "scale"} <= {
        page for page, _ in COMMANDS
    }


def test_commands_can_be_given():
    refused = [
        f"{page}: sari {shlex.join(words)}: {why}"
        for page, words in COMMANDS
        if (why := refusal(words))
    ]
    assert not refused, "\n" + "\n".join(refused)


def test_links_lead_somewhere():
    lost = [f"{page.stem}: {target}" for page in PAGES for target in dead_ends(page)]
    assert not lost, "\n" + "\n".join(lost)
