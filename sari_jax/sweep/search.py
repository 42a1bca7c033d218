"""Which settings a sweep tries: a grid of them, or a number of draws.

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
DIGITS = 4  # of a drawn number: its run's name says all of it
LONGEST, LONGEST_VALUE = 160, 40  # characters of a name, and of a value in it
TRIES = 1000  # in a row that draw nothing new, before there is nothing new


def uniform(low: float, high: float) -> Distribution:
    """Every number from `low` to `high` alike."""
    if not low < high:
        raise InputError(f"uniform({low:g}, {high:g}): the first must be below the second")
    return lambda generator: generator.uniform(low, high)


def log_uniform(low: float, high: float) -> Distribution:
    """Every power of ten from `low` to `high` alike: for rates and coefficients."""
    if not 0 < low < high:
        raise InputError(
            f"log_uniform({low:g}, {high:g}): the first must be above 0 and below the second"
        )
    return lambda generator: math.exp(generator.uniform(math.log(low), math.log(high)))


def grid(base: ConfigDict, values: Mapping[str, Sequence[Any]]) -> Iterator[Named]:
    """Every combination of the values, the last setting's changing fastest.

    Args:
        base: stays as it is.
        values: by the dotted names of settings.

    Raises:
        InputError: the base has no such setting, or of another type; no values are given.
    """
    _check(base, values)
    for combination in itertools.product(*values.values()):
        yield changed(base, dict(zip(values, combination, strict=True)))


def sampled(
    base: ConfigDict, values: Mapping[str, Distribution | Sequence[Any]], count: int, seed: int
) -> Iterator[Named]:
    """Random search (Bergstra and Bengio 2012): `count` different draws; more of them begin with the same ones.

    Args:
        values: by the dotted names of settings: `uniform`, `log_uniform`, or a list, each of whose values is alike.
            Numbers are drawn to four digits, and to whole ones where the setting is one.

    Raises:
        InputError: as `grid`; or there are no `count` different draws.
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
    """The base with these settings in place of its own, named after them.

    Raises:
        InputError: the base has no such setting, or of another type.
    """
    config = copy.deepcopy(base)  # references between settings go along
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
    """`learning_rate=0.001,seed=2`: the last part of each setting's name where that is its own, and its value.

    What a folder's name may not hold is left out, and a digest tells the value from others.
    """
    last = [key.rpartition(".")[2] for key in values]
    names = [name if last.count(name) == 1 else key for name, key in zip(last, values, strict=True)]
    told = zip(names, map(_told, values.values()), strict=True)
    return _short(",".join(f"{name}={value}" for name, value in told), LONGEST)


def _told(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "+".join(map(_told, value))
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
            raise InputError(f"{key}: {given!r} must be a list of values")
        if isinstance(given, Sequence) and not given:
            raise InputError(f"{key}: the list of its values is empty")


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
