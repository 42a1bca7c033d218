"""The settings that a workdir was started with, and which of them may change when the run goes on.

A setting may change where nothing that was computed depends on it. Models and data are told by digests of their
content, so that their folders may move.
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

# Settings that change nothing of what is computed: where a run lives, what it shows, when it saves. The roster and
# not the digest of a data file says which questions a run has.
FREE = (
    *("mesh.", "data.workers", "data.keep_features_gb", "model.reference_memory", "model.size"),
    "data.max_bad_fraction",
    *("fingerprints.data", "fingerprints.held_out"),
    *("samples_every", "max_skipped", "checkpoint.", "held_out."),
)
# Free where a digest tells that the content is the same.
PATHS = ("model.path", "data.train", "grpo.reward_file")
SHAPES = "data.shapes."
NAME = "config.json"
PROMPTS = "prompts"


def fingerprints(run: Run, functions: Functions = MappingProxyType({})) -> dict[str, str]:
    """Digests of what a run reads: its model's config and weights, its tokenizer and templates, its questions, and a
    user's rewards.
    """
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
    """Does nothing where a run may go on with these settings, or start.

    Raises:
        InputError: a setting differs that what was computed depends on.
    """
    if (Path(workdir) / NAME).exists() and (changed := changes(workdir, config)):
        raise InputError(
            f"{workdir}: holds a run with another {', '.join(changed)}; {_mend(changed)}"
        )


def claim(workdir: Path | str, config: dict[str, Any], roster: Sequence[Entry] = ()) -> None:
    """Writes the run's settings and roster, or checks the settings against those there are and keeps the new ones.

    Raises:
        InputError: the folder cannot be written, or a setting differs that what was computed depends on.
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
    """The roster of the run that a workdir holds; None where none has started, or one without a roster."""
    return read_roster(workdir) if (Path(workdir) / NAME).exists() else None


def changes(workdir: Path | str, config: dict[str, Any]) -> list[str]:
    """The settings with which a workdir's run cannot go on, of those given.

    Raises:
        InputError: not the folder of a run.
    """
    before, now = (flat(settings) for settings in (_settings(workdir), json.loads(_text(config))))
    # Without a roster the data file alone says what a run's questions are.
    bound = () if (Path(workdir) / FILE).exists() else ("fingerprints.data",)
    # A setting that came later than the run has its default, and a digest is not known.
    fresh = flat(json.loads(_text(defaults().to_dict())))
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
    """Settings by their full names."""
    return traverse_util.flatten_dict(dict(settings), sep=".")


def read_run(workdir: Path | str, model: Path | str | None = None) -> Run:
    """The settings that a workdir was started with.

    Args:
        model: where its model directory lies now, if it has moved.

    Raises:
        InputError: not the folder of a run, or another model stands in its model directory now.
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
