"""Settings for a sweep to try: a grid of values, or a number of draws.

from sari_jax.sweep.search import grid, log_uniform, sampled
from sari_jax.train.flags import read_config_file

def get_runs():
    base = read_config_file("configs/grpo_nano.py", ["--config.steps=100"])
    yield "base", base
    yield from grid(base, {"optimizer.learning_rate": [1e-4, 3e-4], "seed": [0, 1]})
    yield from sampled(base, {"grpo.kl_coefficient": log_uniform(1e-3, 1e-1)}, count=8, seed=0)
"""

import copy
import hashlib
import itertools
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from sari_jax.errors import InputError
from sari_jax.train.flags import check_key

Named = tuple[str, ConfigDict]
Distribution = Callable[[random.Random], float]
# Digits of a drawn number, so that the run's name can hold all of it.
DIGITS = 4
# The most characters of a run's name, and of one value in it.
LONGEST = 160
LONGEST_VALUE = 40
# After this many draws in a row that were drawn before, no new ones are expected.
TRIES = 1000


def uniform(low: float, high: float) -> Distribution:
    """Returns a distribution in which all numbers from `low` to `high` are equally likely."""
    if not low < high:
        raise InputError(f"uniform({low:g}, {high:g}): the first must be below the second")
    return lambda generator: generator.uniform(low, high)


def log_uniform(low: float, high: float) -> Distribution:
    """Returns a distribution that is uniform in the logarithm, for rates and coefficients."""
    if not 0 < low < high:
        raise InputError(
            f"log_uniform({low:g}, {high:g}): the first must be above 0 and below the second"
        )
    return lambda generator: math.exp(generator.uniform(math.log(low), math.log(high)))


def grid(base: ConfigDict, values: Mapping[str, Sequence[Any]]) -> Iterator[Named]:
    """Yields every combination of the values; those of the last setting change fastest.

    Args:
        base: the other settings; it is not changed.
        values: lists of values by the dotted names of settings.

    Raises:
        InputError: the base has no such setting, the setting has another type, or a list is empty.
    """
    _check(base, values)
    for combination in itertools.product(*values.values()):
        yield changed(base, dict(zip(values, combination, strict=True)))


def sampled(
    base: ConfigDict, values: Mapping[str, Distribution | Sequence[Any]], count: int, seed: int
) -> Iterator[Named]:
    """Yields `count` different draws of random search (Bergstra and Bengio 2012).

    A larger `count` with the same seed begins with the same draws.

    Args:
        values: dotted name of a setting -> `uniform`, `log_uniform`, or a list, whose values are equally likely.
            Numbers have four digits; they are whole if the setting is.

    Raises:
        InputError: as in `grid`; or there are fewer than `count` different draws.
    """
    _check(base, values)
    generator = random.Random(seed)
    seen: set[str] = set()
    tries = 0
    while len(seen) < count:
        drawn = {key: _draw(one, base, key, generator) for key, one in values.items()}
        name, config = changed(base, drawn)
        tries = tries + 1 if name in seen else 0
        if tries == TRIES:
            raise InputError(
                f"sampled: only {len(seen)} different draws were found, not {count}; lower count"
            )
        if not tries:
            seen.add(name)
            yield name, config


def changed(base: ConfigDict, values: Mapping[str, Any]) -> Named:
    """Returns a copy of the base with some settings changed, and a name made of them.

    Raises:
        InputError: the base has no such setting, or the setting has another type.
    """
    # A deep copy keeps references between settings.
    config = copy.deepcopy(base)
    for key, value in values.items():
        check_key(config, key)
        value = tuple(value) if isinstance(value, list) else value
        try:
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            raise InputError(
                f"config: {key} = {value!r} is not of the type of {_at(base, key)!r}"
            ) from error
    return run_name(values), config


def run_name(values: Mapping[str, Any]) -> str:
    """Returns a name such as `learning_rate=0.001,seed=2`.

    It has the last part of each setting's name, or all of it if two settings share that part. Characters that no
    folder's name may hold are dropped from a value; then a digest keeps it different from others.
    """
    last = [key.rpartition(".")[2] for key in values]
    names = [name if last.count(name) == 1 else key for name, key in zip(last, values, strict=True)]
    pairs = zip(names, map(_value_name, values.values()), strict=True)
    return _short(",".join(f"{name}={value}" for name, value in pairs), LONGEST)


def _value_name(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "+".join(map(_value_name, value))
    text = value if isinstance(value, str) else repr(value)
    safe = re.sub(r"[^A-Za-z0-9._+-]+", "-", text)
    return (
        _short(text, LONGEST_VALUE)
        if safe == text
        else f"{safe.strip('-')[-LONGEST_VALUE:]}-{_digest(text)}"
    )


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]


def _check(base: ConfigDict, values: Mapping[str, Any]) -> None:
    for key, given in values.items():
        check_key(base, key)
        if isinstance(given, str) or not callable(given) and not isinstance(given, Sequence):
            raise InputError(f"{key}: {given!r} must be a list of values, uniform or log_uniform")
        if isinstance(given, Sequence) and not given:
            raise InputError(f"{key}: the list of its values is empty; give at least one")


def _draw(
    given: Distribution | Sequence[Any], base: ConfigDict, key: str, generator: random.Random
) -> Any:
    if not callable(given):
        return generator.choice(given)
    value = float(f"{given(generator):.{DIGITS}g}")
    return round(value) if isinstance(_at(base, key), int) else value


def _at(config: ConfigDict, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config
