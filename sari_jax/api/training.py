"""Training from Python: settings, rewards that are functions, callbacks."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sari_jax.errors import InputError
from sari_jax.parallel import hosts
from sari_jax.parallel.hosts import initialize_distributed as distributed
from sari_jax.rl.objectives import OBJECTIVES
from sari_jax.train.callbacks import Callback
from sari_jax.train.config import Run, defaults, freeze
from sari_jax.train.flags import check_key, read_config_file
from sari_jax.train.loop import never
from sari_jax.train.loop import train as run_to_the_end
from sari_jax.user_file import reason

__all__ = ["config", "distributed", "train"]

NOTHING: Mapping[str, Any] = MappingProxyType({})


def train(
    config: Run | ConfigDict | Path | str,
    workdir: Path | str,
    *,
    overrides: Mapping[str, Any] = NOTHING,
    rewards: Mapping[str, Callable[..., float]] = NOTHING,
    callbacks: Sequence[Callback] = (),
    stop: Callable[[], bool] = never,
) -> dict[str, Any]:
    """Runs SFT or GRPO to its last step, or resumes it where the workdir holds a part of the run.

    On several hosts all of them call this, inside `with sari.distributed():`.

    Args:
        config: a config file as `sari train --config` takes it, or what `sari.config` returns, or a `Run`.
        workdir: the folder that the run writes: settings, checkpoints, metrics, samples.
        overrides: settings to change, by their full names: {"optimizer.learning_rate": 1e-5}.
        rewards: functions `name(completion, record, style)` that return a number, as in a reward file. Each counts
            with weight 1, unless `grpo.rewards` names it: ("accuracy=1", "brevity=0.2"). The run records a digest of
            each function's source, as it does of a reward file: with another source it is not resumed. What a
            function calls is not part of the digest.
        callbacks: each is called with a `StepEvent` after every step, in the main thread of the first host alone. An
            exception in one ends the run; the same call goes on from the last checkpoint.
        stop: called before every step and before every batch of held-out questions; once it returns True, the run
            saves a checkpoint and ends. On several hosts it must return the same on all of them.

    Returns:
        The last step's metrics, its number `step`, and whether the run is `finished`.

    Raises:
        InputError: settings, model, data, rewards or workdir that cannot be used. Nothing is written before all are
            checked. A lambda or a builtin is no reward: it has no source to record.
    """
    with hosts.raise_on_all_hosts():
        run = _run(config, overrides, rewards)
    return run_to_the_end(run, workdir, stop, rewards=rewards, callbacks=callbacks)


def config(recipe: Path | str, overrides: Mapping[str, Any] = NOTHING) -> ConfigDict:
    """Reads a config file: settings to change and to train with.

    Args:
        recipe: as `sari train --config` takes it.
        overrides: settings to change, by their full names.

    Raises:
        InputError: no such file or setting, or a value of another type.
    """
    settings = read_config_file(str(recipe), [])
    _override(settings, overrides)
    return settings


def _run(
    config: Run | ConfigDict | Path | str,
    overrides: Mapping[str, Any],
    rewards: Mapping[str, Callable[..., float]],
) -> Run:
    if isinstance(config, Run):
        settings = ConfigDict(dataclasses.asdict(config))
    else:
        is_config = isinstance(config, ConfigDict)
        given = config if is_config else read_config_file(str(config), [])
        settings = ConfigDict(_merged(defaults().to_dict(), given.to_dict()))
    _override(settings, overrides)
    if not isinstance(rewards, Mapping) or not all(map(callable, rewards.values())):
        raise InputError("rewards: give a dictionary of functions by name, as {'brevity': brevity}")
    if rewards:
        _name_rewards(settings, rewards)
    return freeze(settings)


def _merged(settings: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the given ones in their place; those may leave some out."""
    for key, value in given.items():
        known = settings.get(key)
        both = isinstance(known, dict) and isinstance(value, Mapping)
        settings[key] = _merged(known, value) if both else value
    return settings


def _override(settings: ConfigDict, overrides: Mapping[str, Any]) -> None:
    for key, value in overrides.items():
        check_key(settings, str(key))
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if isinstance(value, list):
            value = tuple(value)
        if isinstance(value, np.generic):
            value = value.item()
        try:
            settings.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            raise InputError(f"config: {key} = {value!r}: {reason(error)}") from error


def _name_rewards(settings: ConfigDict, rewards: Mapping[str, Callable[..., float]]) -> None:
    """Names the functions in the settings, with weight 1 where the settings give no weight."""
    if settings.stage != "grpo":
        raise InputError(
            f"rewards: stage = {settings.stage!r} learns from no reward; leave rewards out, or set stage to 'grpo'"
        )
    objective = OBJECTIVES.get(settings.grpo.objective)
    shares = settings.grpo.rewards or (objective.rewards if objective else ())
    weighted = {share.partition("=")[0] for share in shares}
    added = [f"{name}=1" for name in rewards if name not in weighted]
    settings.grpo.rewards = (*shares, *added)
    settings.grpo.reward_functions = tuple(rewards)
