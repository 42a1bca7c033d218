"""A sweep's runs on TPU slices: a settings file for each, and the command of tpu_scripts that launches it."""

import hashlib
import re
from pathlib import Path

import sari_jax
from sari_jax.atomic import told, write_text
from sari_jax.errors import InputError
from sari_jax.sweep.plan import Planned

SCRIPTS = Path(sari_jax.__file__).parent.parent / "tpu_scripts"
OWN = ("NAME", "CONFIG", "WORKDIR", "EXPORT", "OVERRIDE")  # settings that differ from run to run


def launches(runs: list[Planned], settings: Path) -> list[list[str]]:
    """Writes each run's settings file; the commands that launch the runs as JobSets of one cluster.

    A JobSet that runs or is finished is left alone by its command, one that has failed is launched again.

    Args:
        settings: as tpu_scripts/slice.env; what it says of a run is replaced, its overrides too.

    Raises:
        InputError: no such file, or it names no cluster; the folder cannot be written.
    """
    script = SCRIPTS / "gke.sh"
    if not script.is_file():
        raise InputError(f"{script}: is not there; start the sweep from a checkout of the sources")
    try:
        lines = settings.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{settings}: cannot be read ({error}); copy {script.parent}/slice.env.example to it and fill it in"
        ) from error
    given = {
        key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)
    }
    if not given.get("CLUSTER", "").strip("\"'"):
        raise InputError(
            f"{settings}: CLUSTER is empty; name the one that the sweep's runs share: NAME, where gke.sh create made it"
        )
    shared = [line for line in lines if line.partition("=")[0].strip() not in OWN]
    commands = []
    for run in runs:
        own = {
            "NAME": _jobset(given.get("NAME", "").strip("\"'"), run),
            "CONFIG": run.config.absolute(),
            "WORKDIR": run.workdir.absolute(),
        }
        text = "\n".join([*shared, *(f"{key}={value}" for key, value in own.items())])
        with told(run.slice):
            write_text(run.slice, text + "\n")
        commands.append([str(script), "launch", "--yes", "--settings", str(run.slice)])
    return commands


def _jobset(prefix: str, run: Planned) -> str:
    """40 characters of what Kubernetes allows, the same whenever the sweep is launched again."""
    name = re.sub(r"[^a-z0-9]+", "-", run.name.lower()).strip("-")
    digest = hashlib.sha256(str(run.workdir.absolute()).encode()).hexdigest()[:6]
    return f"{prefix[:16].strip('-') or 'sweep'}-{name[:15].strip('-')}-{digest}"
