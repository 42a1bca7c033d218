"""Loading of a Python file of the user's as a module. Any failure of its code becomes one line.

importlib alone may run code that was compiled before: it compares only the file's size and the second of its last
change. A reward or a sweep that was edited twice in one second would then run in its old version.
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
    """A loader that always compiles the file's text."""

    def path_stats(self, path: str) -> dict[str, float]:
        raise OSError  # then Python neither reads compiled code nor writes any


def load(path: Path | str, name: str, called: str) -> ModuleType:
    """Runs the file and returns its module.

    Args:
        name: the module's name in sys.modules, where dataclasses look their module up.
        called: the file's name in messages.

    Raises:
        InputError: the file does not exist, or its code fails.
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
    """Raises InputError, with `called` in its message, in place of any exception inside."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{called}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Returns one line about an error of the user's code: its type and the last line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[-1]}"
