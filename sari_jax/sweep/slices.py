"""A sweep's runs on TPU slices: a settings file for each, and the line of tpu_scripts' commands that launches it."""

import hashlib
import re
import shlex
from pathlib import Path

import sari_jax
from sari_jax.atomic import os_errors_as_input_error, write_text
from sari_jax.errors import InputError
from sari_jax.sweep.plan import Planned

SCRIPTS = Path(sari_jax.__file__).parent.parent / "tpu_scripts"
# Which script launches a run, and its verbs, each once the one before it has done its work. A JobSet that runs or is
# finished is left alone, one that has failed is launched again. A queued resource is the run's own: it is created, kept
# until the run is finished, and given back.
WAYS = {"xpk": ("gke.sh", ("launch",)), "queued": ("queued.sh", ("keep", "delete"))}
OWN = ("NAME", "CONFIG", "WORKDIR", "EXPORT", "OVERRIDE")  # settings that differ from run to run


def launches(runs: list[Planned], settings: Path, way: str) -> dict[str, str]:
    """Writes each run's settings file; by the runs' names the lines for a shell that launch them.

    Args:
        settings: as tpu_scripts/slice.env; what it says of a run is replaced, its overrides too.
        way: of `WAYS`: JobSets of one cluster, or a queued resource for each.

    Raises:
        InputError: no such file, or it names no cluster for JobSets; the folder cannot be written.
    """
    name, verbs = WAYS[way]
    script = SCRIPTS / name
    if not script.is_file():
        raise InputError(f"{script}: is not there; start the sweep from a checkout of the sources")
    try:
        found = settings.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{settings}: cannot be read ({error}); copy {script.parent}/slice.env.example to it and fill it in"
        ) from error
    given = {
        key.strip(): value.strip() for key, _, value in (line.partition("=") for line in found)
    }
    if way == "xpk" and not given.get("CLUSTER", "").strip("\"'"):
        raise InputError(
            f"{settings}: CLUSTER is empty; name the one that the sweep's runs share: NAME, where gke.sh create made it"
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
        # A finished run has nothing left but a slice, perhaps, that could not be given back.
        wanted = verbs if not run.finished else [verb for verb in verbs if verb == "delete"]
        words = ([str(script), verb, "--yes", "--settings", str(run.slice)] for verb in wanted)
        if wanted:
            # ssh would read the lines that follow, where a shell is given them all.
            lines[run.name] = " && ".join(f"{shlex.join(line)} < /dev/null" for line in words)
    return lines


def _resource(prefix: str, run: Planned) -> str:
    """40 characters of what Kubernetes and Cloud TPU allow, the same whenever the sweep is launched again."""
    name = re.sub(r"[^a-z0-9]+", "-", run.name.lower()).strip("-")
    digest = hashlib.sha256(str(run.workdir.absolute()).encode()).hexdigest()[:6]
    return f"{prefix[:16].strip('-') or 'sweep'}-{name[:15].strip('-')}-{digest}"
