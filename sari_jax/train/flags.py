"""Reads `--config FILE --config.KEY=VALUE ...`; ml_collections applies the overrides."""

import inspect
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from sari_jax import user_file
from sari_jax.data.jsonl import json_object
from sari_jax.errors import InputError
from sari_jax.settings import nearest
from sari_jax.train.recipes import find_config


def read_config_file(config: str, overrides: list[str]) -> ConfigDict:
    """Returns the settings that a recipe or a config file gives, with overrides applied.

    If a setting is given twice, the last value counts and no other is read. ml_collections alone would join tuples.

    Args:
        config: NAME of a recipe or PATH of a file, with `:ARGUMENT` if its `get_config` takes one. A Python file's
            `get_config()` gives the settings; a JSON file holds them.
        overrides: --config.KEY=VALUE of each setting that changes.

    Raises:
        InputError: no such recipe or file; a file that fails or is no JSON object; an argument that it does not know;
            an override that is not --config.KEY=VALUE, names an unknown key or has a value of the wrong type.
    """
    path, argument = find_config(config)
    # A Python file is the user's program and may fail in any way.
    with user_file.failing_as(f"config: {config}"):
        read = _from_json if path.suffix == ".json" else _from_python
        settings = read(path, argument)
        last = {_checked_key(settings, override): override for override in overrides}
        return _with_overrides(settings, [*last.values()])


def check_key(config: ConfigDict, key: str) -> None:
    """Checks that a config has a setting.

    Raises:
        InputError: the config has no such setting; the nearest is named.
    """
    node, seen = config, ""
    for part in key.split("."):
        known = list(node) if isinstance(node, ConfigDict) else []
        if part not in known:
            raise InputError(f"config: unknown key {seen}{part}; {nearest(part, known)}")
        node, seen = node[part], f"{seen}{part}."


def _from_python(path: Path, argument: str) -> ConfigDict:
    """Returns what the file's `get_config` returns."""
    module = user_file.load(path, f"config_{path.stem}", f"config: {path}")
    if argument and not inspect.signature(module.get_config).parameters:
        raise InputError(f"config: {path} takes no argument; leave out ':{argument}'")
    config = module.get_config(argument) if argument else module.get_config()
    if not isinstance(config, ConfigDict):
        raise TypeError(f"get_config() returns {type(config).__name__}, not ConfigDict")
    return config


def _from_json(path: Path, argument: str) -> ConfigDict:
    if argument:
        raise InputError(f"config: {path}: a JSON file takes no argument; leave out ':{argument}'")
    return ConfigDict(_tuples(json_object(path.read_text(encoding="utf-8"))))


def _with_overrides(config: ConfigDict, overrides: list[str]) -> ConfigDict:
    argv = ["sari", *overrides]
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    values(argv)
    return values.config


def _tuples(value: Any) -> Any:
    """Returns JSON's lists as the tuples they were: lists could not be overridden."""
    if isinstance(value, dict):
        return {key: _tuples(one) for key, one in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _checked_key(config: ConfigDict, override: str) -> str:
    """Returns the key that an override sets, which the config has.

    Raises:
        InputError: the override is not --config.KEY=VALUE, or its key is unknown.
    """
    name, equals, _ = override.partition("=")
    if not (name.startswith("--config.") and equals):
        raise InputError(f"{override}: an override reads --config.KEY=VALUE")
    key = name.removeprefix("--config.")
    check_key(config, key)
    return key
