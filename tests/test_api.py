"""The public names of the package: lazy, complete and documented."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import sari_jax as sari
from sari_jax.errors import InputError

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "api.md").read_text()
HEADINGS = re.findall(r"`((?:sari|Model)\.\w+\(.*?\))`(?:, |$)", PAGE, re.MULTILINE)
FIRST = """
import sys
import sari_jax as sari
assert "train" in dir(sari) and "load" in dir(sari)
loaded = [name for name in sys.modules if name.split(".")[0] in ("jax", "numpy", "flax")]
assert not loaded, loaded
assert [name for name in sys.modules if name.startswith("sari_jax")] == ["sari_jax"]
assert sari.InputError.__mro__[1] is ValueError
assert "jax" not in sys.modules
"""


def test_the_package_imports_nothing_at_first():
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def names(imported) -> dict[str, object]:
    """Each public name with its value. Loading them all imports most of the package, which counts for no test."""
    return {name: getattr(sari, name) for name in sari.__all__}


def test_every_name_is_there_and_documented(names):
    for name, value in names.items():
        assert inspect.ismodule(value) or callable(value), name
    assert dir(sari) == sorted(names)
    missing = [name for name in sari.__all__ if not re.search(rf"`(sari\.)?{name}\b", PAGE)]
    assert not missing, f"docs/api.md lacks {missing}"


def test_the_table_of_names_is_what_type_checkers_see():
    tree = ast.parse((ROOT / "sari_jax" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    table = {**sari._SOURCES, **sari._CALLED, **dict.fromkeys(sari._MODULES, "sari_jax.api")}
    assert seen == table and sorted(seen) == sorted(sari.__all__)


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'sari_jax' has no attribute 'trian'"):
        sari.trian  # noqa: B018
    assert sari.InputError is InputError


@pytest.mark.parametrize("name", ["train", "evaluate", "report"])
def test_a_subpackage_is_the_function_of_its_name(names, name):
    """Whichever is imported first: Python sets the subpackage as an attribute of the package."""
    package = __import__(f"sari_jax.{name}", fromlist=["anything"])
    function = getattr(__import__(sari._CALLED[name], fromlist=[name]), name)
    assert getattr(sari, name) is package and inspect.ismodule(package)
    assert inspect.signature(package) == inspect.signature(function)
    with pytest.raises(TypeError, match="nonsense|missing a required argument"):
        package(nonsense=1)


Parameters = list[tuple[str, bool, str | None]]


def written(heading: str) -> Parameters:
    """The parameters of a heading: each with its name, whether it goes by name alone, and its default."""
    (function,) = ast.parse(f"def {heading.partition('.')[2]}: ...").body
    given = function.args
    required = len(given.args) - len(given.defaults)
    defaults = [*[None] * required, *given.defaults, *given.kw_defaults]
    return [
        (argument.arg, argument in given.kwonlyargs, default and ast.unparse(default))
        for argument, default in zip([*given.args, *given.kwonlyargs], defaults, strict=True)
    ]


def actual(heading: str) -> Parameters:
    from sari_jax.train.loop import never

    owner, name = heading.partition("(")[0].split(".")
    function = getattr(sari if owner == "sari" else sari.Model, name)
    found = []
    for parameter in inspect.signature(function).parameters.values():
        default = parameter.default
        if parameter.name == "self":
            continue
        if default is parameter.empty:
            shown = None
        elif callable(default):
            assert default is never
            shown = "lambda: False"
        else:
            shown = repr(dict(default) if isinstance(default, Mapping) else default)
        found.append((parameter.name, parameter.kind is parameter.KEYWORD_ONLY, shown))
    return found


def test_headings_are_signatures(names):
    assert len(HEADINGS) > 12
    for heading in HEADINGS:
        assert written(heading) == actual(heading), heading
