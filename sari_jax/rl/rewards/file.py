"""A user's own rewards: functions of one Python file, which the config names as it is named itself."""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path

from sari_jax.digests import files_digest
from sari_jax.errors import InputError
from sari_jax.user_file import load


def load_rewards(
    path: str, names: Iterable[str], taken: Iterable[str] = ()
) -> dict[str, Callable[..., float]]:
    """The functions of these names; each is called as `name(completion, record, style)` and gives a number.

    Args:
        taken: names that stand for something else already.

    Raises:
        InputError: no such file, one that fails, one without such a function, or with one of a name that is taken.
    """
    module = load(path, "reward_file", f"grpo.reward_file {path}")
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
    if not Path(path).is_file():
        raise InputError(f"grpo.reward_file {path}: no such file")
    return files_digest([Path(path)])


def _function(module: object, path: str, name: str) -> Callable[..., float]:
    function = getattr(module, name, None)
    try:
        inspect.signature(function).bind("completion", "record", "style")
    except (TypeError, ValueError) as error:
        raise InputError(
            f"grpo.reward_file {path}: has no function {name}(completion, record, style), which grpo.rewards names"
        ) from error
    return function
