"""A user's own rewards: functions of one Python file, which grpo.reward_file names."""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path

from sari_jax.digests import files_digest
from sari_jax.errors import InputError
from sari_jax.user_file import load


def load_rewards(
    path: str, names: Iterable[str], taken: Iterable[str] = ()
) -> dict[str, Callable[..., float]]:
    """Loads functions from a Python file; each is called as `name(completion, record, style)` and returns a number.

    Args:
        path: the file's path.
        names: the names of the functions to load.
        taken: names that the file must not define.

    Raises:
        InputError: the file does not exist, fails, lacks a function, or defines a name that is taken.
    """
    module = load(path, "reward_file", f"grpo.reward_file {path}")
    for name in taken:
        if hasattr(module, name):
            raise InputError(
                f"grpo.reward_file {path}: defines {name}, which is a built-in reward; give it another name"
            )
    return {name: _function(module, path, name) for name in names}


def digest(path: str) -> str:
    """Returns a hash of the file's content; a run whose reward file has another hash is not resumed.

    Raises:
        InputError: the file does not exist.
    """
    if not Path(path).is_file():
        raise InputError(f"grpo.reward_file {path}: no such file; give the path of a Python file")
    return files_digest([Path(path)])


def _function(module: object, path: str, name: str) -> Callable[..., float]:
    """Returns a function of the module that can be called with three arguments."""
    function = getattr(module, name, None)
    try:
        inspect.signature(function).bind("completion", "record", "style")
    except (TypeError, ValueError) as error:
        raise InputError(
            f"grpo.reward_file {path}: has no function {name}(completion, record, style), which grpo.rewards names;"
            " define it, or take the name out of grpo.rewards"
        ) from error
    return function
