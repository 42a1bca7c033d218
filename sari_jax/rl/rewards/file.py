"""A user's own rewards: functions of one Python file, which the config names as it is named itself."""

import importlib.machinery
import importlib.util
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path

from sari_jax.digests import files_digest
from sari_jax.errors import InputError


class _Source(importlib.machinery.SourceFileLoader):
    """Reads the text itself each time: code that was compiled before is told from it by size and second alone."""

    def path_stats(self, path: str) -> dict[str, float]:
        raise OSError  # so Python neither looks for such code nor leaves any


def load_rewards(
    path: str, names: Iterable[str], taken: Iterable[str] = ()
) -> dict[str, Callable[..., float]]:
    """The functions of these names; each is called as `name(completion, record, style)` and gives a number.

    Args:
        taken: names that stand for something else already.

    Raises:
        InputError: no such file, one that fails, one without such a function, or with one of a name that is taken.
    """
    require(path)
    loader = _Source("reward_file", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    try:
        loader.exec_module(module)
    except Exception as error:  # the file is the user's program and may fail in any way
        raise InputError(f"grpo.reward_file {path}: {told(error)}") from error
    for name in taken:
        if hasattr(module, name):
            raise InputError(
                f"grpo.reward_file {path}: defines {name}, which is built in; name it otherwise"
            )
    return {name: _function(module, path, name) for name in names}


def digest(path: str) -> str:
    """Of the file, for a run to be told from one with other rewards.

    Raises:
        InputError: no such file.
    """
    require(path)
    return files_digest([Path(path)])


def require(path: str) -> None:
    if not Path(path).is_file():
        raise InputError(f"grpo.reward_file {path}: no such file")


def told(error: Exception) -> str:
    """An error of the user's code in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _function(module: object, path: str, name: str) -> Callable[..., float]:
    function = getattr(module, name, None)
    try:
        inspect.signature(function).bind("completion", "record", "style")
    except (TypeError, ValueError) as error:
        raise InputError(
            f"grpo.reward_file {path}: has no function {name}(completion, record, style), which grpo.rewards names"
        ) from error
    return function
