"""The settings that a workdir was started with, and those of them that may change when the run goes on.

A setting may change if no computed result depends on it. Digests of their content identify models and data, so that
their folders may move.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flax import traverse_util

from sari_jax.atomic import write_text
from sari_jax.data.roster import FILE, Entry, read_roster, write_roster
from sari_jax.digests import corpus_digest, model_digest, prompts_digest
from sari_jax.errors import InputError
from sari_jax.rl.rewards.file import digest as reward_digest
from sari_jax.rl.rewards.functions import Functions, functions_digest
from sari_jax.train.config import Run, defaults, freeze

# Settings that no result depends on: where a run lives, what it shows, when it saves. The digest of the data file is
# among them: the roster, not the file, says which questions a run has.
FREE = (
    *("mesh.", "data.workers", "data.keep_features_gb", "model.reference_memory", "model.size"),
    "data.max_bad_fraction",
    *("fingerprints.data", "fingerprints.held_out"),
    *("samples_every", "max_skipped", "checkpoint.", "held_out."),
)
# These may change if a digest shows that the content is the same.
PATHS = ("model.path", "data.train", "grpo.reward_file")
SHAPES = "data.shapes."
NAME = "config.json"
PROMPTS = "prompts"


def fingerprints(run: Run, functions: Functions = MappingProxyType({})) -> dict[str, str]:
    """Digests of a run's inputs: the model's config, weights, tokenizer and templates, the data, a user's rewards."""
    found = {"model": model_digest(run.model.path), PROMPTS: prompts_digest(run.model.path)}
    found["data"] = corpus_digest(Path(run.data.train))
    if run.held_out.every:
        found["held_out"] = corpus_digest(Path(run.held_out.data))
    if run.grpo.reward_file:
        found["rewards"] = reward_digest(run.grpo.reward_file)
    if functions:
        found["reward_functions"] = functions_digest(functions)
    return found


def refuse_changes(workdir: Path | str, config: dict[str, Any]) -> None:
    """Checks that a run may start, or go on, with these settings.

    Raises:
        InputError: a setting differs that computed results depend on.
    """
    if (Path(workdir) / NAME).exists() and (changed := changes(workdir, config)):
        raise InputError(
            f"{workdir}: holds a run with another {', '.join(changed)}; {_mend(changed)}"
        )


def claim(workdir: Path | str, config: dict[str, Any], roster: Sequence[Entry] = ()) -> None:
    """Writes the run's settings and roster. Existing settings are checked against the new ones and replaced by them.

    Raises:
        InputError: the folder cannot be written, or a setting differs that computed results depend on.
    """
    refuse_changes(workdir, config)
    path = Path(workdir) / NAME
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
        if not path.exists() and roster:
            write_roster(workdir, roster)  # first: a folder with settings is that of a run
        if not path.exists() or path.read_text() != _text(config):
            write_text(path, _text(config))
    except OSError as error:
        raise InputError(
            f"{workdir}: cannot be written ({error.strerror}); name another --workdir"
        ) from error


def roster_of(workdir: Path | str) -> list[Entry] | None:
    """The roster of the run in a workdir; None if there is no run, or a run without a roster."""
    return read_roster(workdir) if (Path(workdir) / NAME).exists() else None


def changes(workdir: Path | str, config: dict[str, Any]) -> list[str]:
    """The names of the given settings that the run in a workdir cannot go on with.

    Raises:
        InputError: not the folder of a run.
    """
    before, now = (flat(settings) for settings in (_settings(workdir), json.loads(_text(config))))
    # Without a roster only the data file says which questions a run has.
    bound = () if (Path(workdir) / FILE).exists() else ("fingerprints.data",)
    # A setting that is newer than the run has its default, and a newer digest is not known.
    fresh = flat(json.loads(_text(defaults().to_dict())))
    if unknown := [
        key for key in before if key not in fresh and not key.startswith("fingerprints")
    ]:
        raise InputError(
            f"{Path(workdir) / NAME}: setting {unknown[0]} is unknown; another version wrote it, see docs/glossary.md;"
            " name a new --workdir"
        )
    fresh[f"fingerprints.{PROMPTS}"] = now.get(f"fingerprints.{PROMPTS}")
    return [
        key
        for key in now
        if (old := before.get(key, fresh.get(key))) != now[key]
        and (key in bound or not _may(key, old, now))
    ]


def _may(key: str, old: Any, now: dict[str, Any]) -> bool:
    """Whether a run may go on with another value of this setting."""
    if key == "steps":  # a cosine is laid out over all of them
        return now["optimizer.schedule"] == "constant"
    if key.startswith(SHAPES):  # larger shapes may follow: what was read fits the old ones
        return old is not None and list(now[key][: len(old)]) == list(old)
    if key in PATHS:
        return any(other.startswith("fingerprints.") for other in now)
    return key.startswith(FREE)


def _mend(changed: list[str]) -> str:
    if changed == ["steps"]:
        return (
            "its cosine schedule is laid out over all steps; repeat the old number, or export this run and start a new"
            " --workdir from that"
        )
    if all(key.startswith(SHAPES) for key in changed):
        return "add shapes after the largest, repeat the old ones to resume it, or name a new --workdir"
    return "name a new --workdir, or repeat the old settings to resume it"


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens settings to full names, such as `optimizer.learning_rate`."""
    return traverse_util.flatten_dict(dict(settings), sep=".")


def read_run(workdir: Path | str, model: Path | str | None = None) -> Run:
    """Reads the settings of the run in a workdir.

    Args:
        model: where the model directory is now, if it has moved.

    Raises:
        InputError: the folder holds no run, or its model directory holds another model now.
    """
    settings = _settings(workdir)
    before = settings.pop("fingerprints", {})
    if model is not None:
        settings.setdefault("model", {})["path"] = str(model)
    run = freeze(settings)
    if before.get("model") != model_digest(run.model.path):
        raise InputError(
            f"{run.model.path}: not the model that {workdir} was started from; put that one back, or name where it is"
            " with --model"
        )
    return run


def _text(config: dict[str, Any]) -> str:
    return json.dumps(config, indent=2, sort_keys=True, default=list) + "\n"


def _settings(workdir: Path | str) -> dict[str, Any]:
    path = Path(workdir) / NAME
    if not path.is_file():
        raise InputError(f"{workdir}: no config.json; name the --workdir of a run")
    try:
        settings = json.loads(path.read_text())
        if isinstance(settings, dict):
            return settings
    except (ValueError, RecursionError):
        pass
    raise InputError(f"{path}: not the settings of a run; it was changed or cut short")
