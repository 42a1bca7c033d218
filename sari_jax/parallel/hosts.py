"""Several hosts as one run: they start together, agree on what they run, and end together.

The same command runs on every host and is one of JAX's processes there. In a process that is alone, none of this
does anything, and JAX is not asked to look for others.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from sari_jax.errors import InputError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "transformers")
# How long the hosts wait for each other to start, and for a sign of life from one that is silent.
SECONDS = {"SARI_JOIN_SECONDS": "300", "SARI_HEARTBEAT_SECONDS": "60"}


@contextmanager
def initialize_distributed() -> Iterator[None]:
    """What is inside runs on all hosts, as one run.

    TPU slices, Slurm, Open MPI and Kubernetes need no settings. Elsewhere JAX_COORDINATOR_ADDRESS (HOST:PORT, on
    process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID stand in the environment. SARI_JOIN_SECONDS and
    SARI_HEARTBEAT_SECONDS change how long hosts wait for others to come, and for a sign of life.

    A host that fails alone leaves at once, for whoever started the hosts to start them all again: the others, which
    wait for it in the middle of a step, find it gone and leave too.

    Raises:
        InputError: those settings are not whole.
        SystemExit: 1, the hosts do not find each other in time.
    """
    _start()
    try:
        yield
    except InputError as error:
        if is_multihost():
            _leave(2, f"sari: {error}")
        raise
    except Exception as error:
        if is_multihost():
            # Another host's end shows as an error of this one's exchange with it, in many forms.
            traceback.print_exc()
            reason = (str(error).splitlines() or [""])[0]
            _leave(
                1,
                f"sari: host {jax.process_index()} stopped: {type(error).__name__}: {reason:.300};"
                " if another host is gone, start the same command again on all of them",
            )
        raise
    if is_multihost():
        jax.distributed.shutdown()


def is_multihost() -> bool:
    """Whether this process is one of several."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_primary() -> bool:
    """Whether this process is the one that writes and talks."""
    return not is_multihost() or jax.process_index() == 0


def log(line: str) -> None:
    """A line for the user on standard error, from the first host alone, above a progress bar where there is one."""
    if is_primary():
        tqdm.write(line, file=sys.stderr)


def all_gather(values: np.ndarray) -> np.ndarray:
    """[hosts, ...] of each host's values, which have the same shape and 32 bits at most."""
    with jax.transfer_guard("allow"):
        return np.asarray(multihost_utils.process_allgather(np.asarray(values)))


def all_gather_text(text: str) -> list[str]:
    """Each host's text."""
    if not is_multihost():
        return [text]
    content = np.frombuffer(text.encode(errors="backslashreplace"), np.uint8)
    sizes = all_gather(np.array([len(content)], np.int32))[:, 0]
    padded = np.zeros(1 << int(sizes.max()).bit_length(), np.uint8)
    padded[: len(content)] = content
    rows = all_gather(padded)
    return [rows[i, :size].tobytes().decode() for i, size in enumerate(sizes)]


@contextmanager
def raise_on_all_hosts() -> Iterator[None]:
    """What one host cannot do, none goes on from. Nothing inside may wait for another host.

    Raises:
        InputError: on every host the same, if any of them raised one inside.
    """
    told = ""
    try:
        yield
    except InputError as error:
        if not is_multihost():
            raise
        told = str(error)
    texts = all_gather_text(told)
    if any(texts):
        host, text = next((host, text) for host, text in enumerate(texts) if text)
        raise_collectively(text if len(set(texts)) == 1 else f"host {host}: {text}")


def assert_same_on_all_hosts(facts: Mapping[str, object]) -> None:
    """Compares settings with the other hosts', before any of them writes.

    Raises:
        InputError: on every host the same; the hosts that differ from most are named, and in what.
    """
    hosts = [json.loads(text) for text in all_gather_text(json.dumps(facts, default=str))]
    differing = []
    for key in sorted({key for host in hosts for key in host}):
        values = [json.dumps(host.get(key)) for host in hosts]
        usual = Counter(values).most_common(1)[0][0]
        others = [(i, value) for i, value in enumerate(values) if value != usual]
        if others:
            host, value = others[0]
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            differing.append(f"{key}: {value} on host {host}{more}, {usual} on the others")
    if differing:
        raise_collectively(
            f"the hosts do not run the same: {'; '.join(differing)}; start the same command, with the same"
            " code and files, on every host"
        )


def versions() -> dict[str, str]:
    """Of the code that runs: a digest of this package's sources, and the releases of what it stands on."""
    digest, package = hashlib.sha256(), Path(__file__).parent.parent
    for path in sorted(package.rglob("*.py")):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(package)} {content}\n".encode())
    releases = {f"version.{name}": importlib.metadata.version(name) for name in PACKAGES}
    return {"version.sari_jax": digest.hexdigest()[:16], **releases}


def _start() -> None:
    settings = _settings()
    if settings is None:
        return
    # C++ libraries say on standard output who they are connected to; what stands there is the command's alone.
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    join, heartbeat = (_whole(name, os.environ.get(name, s)) for name, s in SECONDS.items())
    try:
        jax.distributed.initialize(
            **settings,
            initialization_timeout=join,
            heartbeat_timeout_seconds=heartbeat,
            shutdown_timeout_seconds=heartbeat,
        )
    except ValueError as error:
        if settings:
            raise InputError(f"JAX_COORDINATOR_ADDRESS: {error}") from error
        if _launched():
            raise InputError(
                "this process was launched as one of several, and JAX does not find the others; set"
                " JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID on each of them"
            ) from error
        # Else a machine with TPUs that is no part of a slice: JAX found nobody to ask.
    except RuntimeError as error:
        # Not the fault of what was given: whoever starts the hosts may try again.
        reason = str(error).splitlines()[0]
        print(
            f"sari: the other hosts cannot be reached ({reason}); see that the same command runs on each of them",
            file=sys.stderr,
        )
        raise SystemExit(1) from error


def _settings() -> dict[str, str | int] | None:
    """Of `jax.distributed.initialize`: none of them where JAX finds them itself; None for a process that is alone."""
    environ = os.environ
    names = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    if environ.get("JAX_COORDINATOR_ADDRESS") and any(name in environ for name in names):
        missing = [name for name in names if name not in environ]
        if missing:
            raise InputError(
                f"JAX_COORDINATOR_ADDRESS is set and {missing[0]} is not; set it on every host"
            )
        count, number = (_whole(name, environ[name]) for name in names)
        if not number < count:
            raise InputError(f"JAX_PROCESS_ID = {number} must be under JAX_NUM_PROCESSES = {count}")
        if count == 1:
            return None
        address = environ["JAX_COORDINATOR_ADDRESS"]
        if not address.rpartition(":")[2].isdigit():
            raise InputError(f"JAX_COORDINATOR_ADDRESS = {address!r} must be HOST:PORT")
        return {"coordinator_address": address, "num_processes": count, "process_id": number}
    return {} if _launched() or _on_tpu() else None


def _launched() -> bool:
    """Whether something started this process as one of several."""
    environ = os.environ
    counts = (environ.get(name, "1") for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"))
    in_a_job = "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ
    asked = bool(environ.get("JAX_COORDINATOR_ADDRESS"))
    return asked or in_a_job or any(count != "1" for count in counts)


def _on_tpu() -> bool:
    """Whether this machine has TPU chips and may use them; only then can it be one of a slice."""
    platforms = os.environ.get("JAX_PLATFORMS", "tpu")
    chips = any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))
    return "tpu" in platforms and chips and importlib.util.find_spec("libtpu") is not None


def _whole(name: str, text: str) -> int:
    if not text.isdigit():
        raise InputError(f"{name} = {text!r} must be a whole number")
    return int(text)


def raise_collectively(message: str) -> None:
    """The run ends on all hosts, which have all come here: they may wait for each other before they go.

    Raises:
        InputError: always.
    """
    if is_multihost():
        jax.distributed.shutdown()
    raise InputError(message)


def _leave(code: int, message: str) -> None:
    """Without waiting for hosts that wait for this one."""
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)
