"""--config FILE --config.x.y=value, by ml_collections."""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from sari_jax.errors import InputError
from sari_jax.train.config import nearest


def read_config_file(path: str, overrides: list[str]) -> ConfigDict:
    """The config file's `get_config()` with overrides applied.

    Raises:
        InputError: no such file; one that fails; an override that is not --config.KEY=VALUE, names an unknown key or
            has a value of the wrong type.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such config file")
    try:
        for override in overrides:
            _check_override(_parse(path, []), override)
        return _parse(path, overrides)
    except InputError:
        raise
    except Exception as error:  # the file is the user's program and may fail in any way
        reason = [line for line in str(error).splitlines() if line.strip()] or [""]
        raise InputError(f"config: {path}: {type(error).__name__}: {reason[-1].strip()}") from error


def _parse(path: str, overrides: list[str]) -> ConfigDict:
    argv, values = ["sari", f"--config={path}", *overrides], flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=argv)
    values(argv)
    return values.config


def _check_override(config: ConfigDict, override: str) -> None:
    name, equals, _ = override.partition("=")
    if not (name.startswith("--config.") and equals):
        raise InputError(f"{override}: an override reads --config.KEY=VALUE")
    node, seen = config, ""
    for key in name.removeprefix("--config.").split("."):
        known = list(node) if isinstance(node, ConfigDict) else []
        if key not in known:
            raise InputError(f"config: unknown key {seen}{key}; {nearest(key, known)}")
        node, seen = node[key], f"{seen}{key}."
