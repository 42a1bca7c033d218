"""Rewards given as Python functions by name, for runs that are started from Python."""

import hashlib
import inspect
import textwrap
from collections.abc import Callable, Collection, Mapping

from sari_jax.errors import InputError

Functions = Mapping[str, Callable[..., float]]


def check_functions(functions: Functions, names: Collection[str], taken: Collection[str]) -> None:
    """Checks that there is a function `name(completion, record, style)` for each of these names, and no other.

    Args:
        functions: name -> function.
        names: `grpo.reward_functions` of the run.
        taken: names of built-in rewards.

    Raises:
        InputError: a function is missing, has no name in the settings, takes other arguments, or has a name that is
            taken.
    """
    for name in names:
        if name not in functions:
            raise InputError(
                f"config: grpo.reward_functions names {name!r}, a Python function; give it to sari.train as"
                f" rewards={{{name!r}: function}}"
            )
    for name, function in functions.items():
        if name not in names:
            raise InputError(
                f"rewards: {name!r} is not among grpo.reward_functions = {tuple(names)}; add it there"
            )
        if name in taken:
            raise InputError(f"rewards: {name!r} is built in; choose another name")
        try:
            inspect.signature(function).bind("completion", "record", "style")
        except (TypeError, ValueError) as error:
            raise InputError(
                f"rewards: {name!r} must be a function {name}(completion, record, style) that returns a number"
            ) from error


def functions_digest(functions: Functions) -> str:
    """Returns a hash of the functions' names and source; a run with different functions is not resumed.

    Only the source of each function counts. Functions that it calls and values from outside do not change the hash.

    Raises:
        InputError: a function has no source of its own, for instance a lambda, a builtin or a partial.
    """
    parts = []
    for name, function in sorted(functions.items()):
        try:
            source = inspect.getsource(function)
        except (OSError, TypeError):
            source = ""
        if not source or getattr(function, "__name__", "") == "<lambda>":
            raise InputError(
                f"rewards: {name!r} has no source to record for resuming; define it with def, in a file or a"
                " notebook cell"
            )
        parts.append(f"{name}\n{textwrap.dedent(source)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
