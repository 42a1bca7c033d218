"""The language of the house: how docstrings begin, which words are not used, and how long a function may be."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from test_house import ALL, SOURCES, of_each, parsed

LONGEST = 60  # lines of a function
# A docstring's first line is a sentence or a noun phrase. These words begin neither.
OPENINGS = (
    "As At By Else For From How In Neither Nor Of On So Such That To Under Until What When Where Which Who With Without"
    " Args: Raises: Returns:"
).split()
# Words of no trade, and what to say instead.
BANNED = {
    "told": "say who does what: 'is printed', 'raises', 'is reported as'",
    "tells": "prints, reports, names",
    "island": "data shard",
    "islands": "data shards",
    "hopeless": "unsolved",
    "anew": "again",
    "thereof": "of it",
    "whoever": "the user, the caller",
    "howsoever": "however",
    "under_way": "prefetched",
    "take_up": "load_prefetched",
    "sorted_out": "drop_by_pass_rate",
    "ways": "num_shards; or another noun",
}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Classes that are defined here: their constructors are called by name.
CLASSES = {
    node.name
    for path in SOURCES
    for node in ast.walk(parsed(path))
    if isinstance(node, ast.ClassDef)
}


def words_of(path: Path) -> Iterator[tuple[int, str]]:
    """Each word of a file's names, strings and comments, with its line."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type in (tokenize.NAME, tokenize.COMMENT, tokenize.STRING):
            for line, text in enumerate(token.string.splitlines(), token.start[0]):
                for word in re.findall(r"[a-z_]+", text.lower()):
                    yield line, word


@of_each(SOURCES)
def test_a_docstring_begins_with_what_it_is_about(path):
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, (*DEFINITIONS, ast.ClassDef, ast.Module)):
            text = ast.get_docstring(node) or ""
            if text and text.split()[0] in OPENINGS:
                found.append(f"{getattr(node, 'lineno', 1)}: {text.splitlines()[0]!r}")
    assert not found, "; ".join(found)


@of_each(SOURCES)
def test_words_that_are_not_used(path):
    found = {}
    for line, word in words_of(path):
        if word in BANNED:
            found.setdefault(word, []).append(line)
    assert not found, "; ".join(f"{word} ({BANNED[word]}): {found[word]}" for word in found)


@of_each(ALL)
def test_no_lambda_has_a_name(path):
    found = [
        node.lineno
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Lambda)
    ]
    assert not found, f"lines {found}: write a function"


@of_each(SOURCES)
def test_a_function_fits_on_a_screen(path):
    found = [
        f"{node.name}, {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(parsed(path))
        if isinstance(node, DEFINITIONS) and node.end_lineno - node.lineno + 1 > LONGEST
    ]
    assert not found, "; ".join(found)


@of_each(SOURCES)
def test_constructors_are_given_names(path):
    """A tuple that is unpacked into a constructor hides which value is which field."""
    found = [
        node.lineno
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        and (getattr(node.func, "id", "") or getattr(node.func, "attr", "")) in {*CLASSES, "cls"}
        and any(isinstance(given, ast.Starred) for given in node.args)
    ]
    assert not found, f"lines {found}"
