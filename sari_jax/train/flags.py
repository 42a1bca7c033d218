"""--config FILE --config.x.y=value, by ml_collections."""

from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from sari_jax.data.jsonl import json_object
from sari_jax.errors import InputError
from sari_jax.train.config import nearest
from sari_jax.user_file import reason


def read_config_file(path: str, overrides: list[str]) -> ConfigDict:
    """The config file's `get_config()`, or the settings of a JSON file, with overrides applied.

    If a setting is given twice, the last value counts and no other is read. ml_collections alone would join tuples.

    Raises:
        InputError: no such file; one that fails or is no JSON object; an override that is not --config.KEY=VALUE,
            names an unknown key or has a value of the wrong type.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such config file")
    try:
        config = _parse(path, [])
        last = {_checked_key(config, override): override for override in overrides}
        return _parse(path, [*last.values()]) if last else config
    except InputError:
        raise
    except Exception as error:  # the file is the user's program and may fail in any way
        raise InputError(f"config: {path}: {reason(error)}") from error


def check_key(config: ConfigDict, key: str) -> None:
    """
    Raises:
        InputError: the config has no such setting; the nearest is named.
    """
    node, seen = config, ""
    for part in key.split("."):
        known = list(node) if isinstance(node, ConfigDict) else []
        if part not in known:
            raise InputError(f"config: unknown key {seen}{part}; {nearest(part, known)}")
        node, seen = node[part], f"{seen}{part}."


def _parse(path: str, overrides: list[str]) -> ConfigDict:
    argv, values = ["sari", f"--config={path}", *overrides], flags.FlagValues()
    if Path(path).suffix == ".json":
        argv.pop(1)
        config = ConfigDict(_tuples(json_object(Path(path).read_text(encoding="utf-8"))))
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    else:
        config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=argv)
    values(argv)
    return values.config


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were: others could not be overridden."""
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
