"""A Python file of the user's, a program of theirs that may fail in any way: as a module, or as one line that says why.

importlib alone would run code that was compiled before, which it tells from the file's by size and second alone; a
reward or a sweep that was edited twice in one second would not be the one that stands there.
"""

import contextlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from sari_jax.errors import InputError


class _Source(importlib.machinery.SourceFileLoader):
    """Reads the text itself each time."""

    def path_stats(self, path: str) -> dict[str, float]:
        raise OSError  # so Python neither looks for such code nor leaves any


def load(path: Path | str, name: str, called: str) -> ModuleType:
    """The file's module.

    Args:
        name: that the module gets, among those that are imported, as dataclasses in it expect.
        called: how an error calls the file.

    Raises:
        InputError: no such file, or one that fails.
    """
    if not Path(path).is_file():
        raise InputError(f"{called}: no such file")
    loader = _Source(name, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    sys.modules[name] = module
    with failing_as(called):
        loader.exec_module(module)
    return module


@contextlib.contextmanager
def failing_as(called: str) -> Iterator[None]:
    """Whatever goes wrong inside is told as InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{called}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """An error of the user's code in one line: its kind, and the last line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[-1]}"
