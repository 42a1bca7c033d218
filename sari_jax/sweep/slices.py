"""A sweep's runs on TPU slices: a settings file for each, and the shell line that launches it with tpu_scripts."""

import hashlib
import re
import shlex
from pathlib import Path

import sari_jax
from sari_jax.atomic import os_errors_as_input_error, write_text
from sari_jax.errors import InputError
from sari_jax.sweep.plan import Planned

SCRIPTS = Path(sari_jax.__file__).parent.parent / "tpu_scripts"
# Launcher -> its script and the script's verbs in order. `xpk` makes JobSets in one cluster: one that runs or is
# finished stays as it is, one that failed is launched again. `queued` makes a queued resource for each run, keeps it
# until the run is finished, and deletes it.
LAUNCHERS = {"xpk": ("gke.sh", ("launch",)), "queued": ("queued.sh", ("keep", "delete"))}
# Settings that differ from run to run.
OWN = ("NAME", "CONFIG", "WORKDIR", "EXPORT", "OVERRIDE")


def launches(runs: list[Planned], settings: Path, launcher: str) -> dict[str, str]:
    """Writes each run's settings file; returns the shell line that launches each run, by its name.

    Args:
        settings: a file like tpu_scripts/slice.env. Its settings of a run, `OWN`, are replaced.
        launcher: one of `LAUNCHERS`.

    Raises:
        InputError: the file cannot be read, or names no cluster for JobSets; or a run's file cannot be written.
    """
    name, verbs = LAUNCHERS[launcher]
    script = SCRIPTS / name
    if not script.is_file():
        raise InputError(
            f"{script}: does not exist; start the sweep from a checkout of the sources"
        )
    try:
        found = settings.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{settings}: cannot be read ({error}); copy {script.parent}/slice.env.example to it and fill it in"
        ) from error
    given = {
        key.strip(): value.strip() for key, _, value in (line.partition("=") for line in found)
    }
    if launcher == "xpk" and not given.get("CLUSTER", "").strip("\"'"):
        raise InputError(
            f"{settings}: CLUSTER is empty; name the cluster of the sweep's runs (NAME, if gke.sh create made it)"
        )
    shared = [line for line in found if line.partition("=")[0].strip() not in OWN]
    lines = {}
    for run in runs:
        own = {
            "NAME": _resource(given.get("NAME", "").strip("\"'"), run),
            "CONFIG": run.config.absolute(),
            "WORKDIR": run.workdir.absolute(),
        }
        text = "\n".join([*shared, *(f"{key}={value}" for key, value in own.items())])
        with os_errors_as_input_error(run.slice):
            write_text(run.slice, text + "\n")
        # A finished run may still have a slice that could not be deleted.
        wanted = verbs if not run.finished else [verb for verb in verbs if verb == "delete"]
        words = ([str(script), verb, "--yes", "--settings", str(run.slice)] for verb in wanted)
        if wanted:
            # Without /dev/null, ssh would read the lines that follow in a shell's input.
            lines[run.name] = " && ".join(f"{shlex.join(line)} < /dev/null" for line in words)
    return lines


def _resource(prefix: str, run: Planned) -> str:
    """Returns a resource's name: at most 40 characters, allowed by Kubernetes and Cloud TPU, equal at every launch."""
    name = re.sub(r"[^a-z0-9]+", "-", run.name.lower()).strip("-")
    digest = hashlib.sha256(str(run.workdir.absolute()).encode()).hexdigest()[:6]
    return f"{prefix[:16].strip('-') or 'sweep'}-{name[:15].strip('-')}-{digest}"
