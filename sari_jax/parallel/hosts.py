"""Multi-host runs: the hosts start together, check that they run the same thing, and end together.

The same command runs on every host, as one of JAX's processes. In a single-process run the functions here do nothing,
and JAX does not look for other processes.
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
# Environment variables and their defaults: how long hosts wait for each other to start, and how long a host may be
# silent before the others take it for dead.
TIMEOUTS = {"SARI_JOIN_SECONDS": "300", "SARI_HEARTBEAT_SECONDS": "60"}


@contextmanager
def initialize_distributed() -> Iterator[None]:
    """Connects the hosts, runs the block inside as one run, and disconnects them.

    TPU slices, Slurm, Open MPI and Kubernetes need no settings. Elsewhere, set JAX_COORDINATOR_ADDRESS (HOST:PORT, on
    process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID in the environment. SARI_JOIN_SECONDS is the time that hosts wait
    for each other to start, and SARI_HEARTBEAT_SECONDS the time after which a silent host is taken for dead.

    A host that fails alone exits at once. The others wait for it in the middle of a step, notice that it is gone, and
    exit too, so that the launcher can start all of them again.

    Raises:
        InputError: the settings in the environment are incomplete or invalid.
        SystemExit: 1, if the hosts do not find each other in time.
    """
    _initialize()
    try:
        yield
    except InputError as error:
        if is_multihost():
            _exit_now(2, f"sari: {error}")
        raise
    except Exception as error:
        if is_multihost():
            # If another host is gone, this host's communication with it fails, with errors of many kinds.
            traceback.print_exc()
            reason = (str(error).splitlines() or [""])[0]
            _exit_now(
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
    """Whether this process is the one that writes files and logs."""
    return not is_multihost() or jax.process_index() == 0


def log(line: str) -> None:
    """Prints a line on standard error, above any progress bar, on the primary host only."""
    if is_primary():
        tqdm.write(line, file=sys.stderr)


def all_gather(values: np.ndarray) -> np.ndarray:
    """Gathers each host's values as [hosts, ...]. They must have one shape, and dtypes of at most 32 bits."""
    with jax.transfer_guard("allow"):
        return np.asarray(multihost_utils.process_allgather(np.asarray(values)))


def all_gather_text(text: str) -> list[str]:
    """Gathers one text from each host, in the order of the hosts."""
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
    """If any host raises InputError inside, all hosts raise it. The block must not wait for another host.

    Raises:
        InputError: the first host's that raised one, the same on every host.
    """
    failure = ""
    try:
        yield
    except InputError as error:
        if not is_multihost():
            raise
        failure = str(error)
    texts = all_gather_text(failure)
    if any(texts):
        host, text = next((host, text) for host, text in enumerate(texts) if text)
        raise_collectively(text if len(set(texts)) == 1 else f"host {host}: {text}")


def assert_same_on_all_hosts(facts: Mapping[str, object]) -> None:
    """Checks that these settings are the same on all hosts, before any of them writes.

    Raises:
        InputError: the settings differ. The message is the same on every host; it names each setting that differs, and
            a host that differs from most.
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
    """The versions of the running code: a digest of this package's sources, and the releases of its dependencies."""
    digest = hashlib.sha256()
    package = Path(__file__).parent.parent
    for path in sorted(package.rglob("*.py")):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(package)} {content}\n".encode())
    releases = {f"version.{name}": importlib.metadata.version(name) for name in PACKAGES}
    return {"version.sari_jax": digest.hexdigest()[:16], **releases}


def _initialize() -> None:
    arguments = _initialize_arguments()
    if arguments is None:
        return
    # C++ libraries print their connections on standard output, which belongs to the command's own output. So their
    # descriptor is redirected to standard error.
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    join, heartbeat = (
        _whole_number(name, os.environ.get(name, default)) for name, default in TIMEOUTS.items()
    )
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=join,
            heartbeat_timeout_seconds=heartbeat,
            shutdown_timeout_seconds=heartbeat,
        )
    except ValueError as error:
        if arguments:
            raise InputError(f"JAX_COORDINATOR_ADDRESS: {error}") from error
        if _is_launched():
            raise InputError(
                "this process was launched as one of several, and JAX does not find the others; set"
                " JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID on each of them"
            ) from error
        # Otherwise this machine has TPUs and is not part of a slice: a single-process run.
    except RuntimeError as error:
        # The settings may be right and the other hosts late, so this is no InputError: the launcher may try again.
        reason = str(error).splitlines()[0]
        print(
            f"sari: the other hosts cannot be reached ({reason}); check that the same command runs on each of them",
            file=sys.stderr,
        )
        raise SystemExit(1) from error


def _initialize_arguments() -> dict[str, str | int] | None:
    """Arguments for `jax.distributed.initialize`: {} if JAX can detect them itself, None for a single-process run."""
    environ = os.environ
    names = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    if environ.get("JAX_COORDINATOR_ADDRESS") and any(name in environ for name in names):
        missing = [name for name in names if name not in environ]
        if missing:
            raise InputError(
                f"JAX_COORDINATOR_ADDRESS is set and {missing[0]} is not; set it on every host"
            )
        count, process_id = (_whole_number(name, environ[name]) for name in names)
        if not process_id < count:
            raise InputError(
                f"JAX_PROCESS_ID = {process_id} must be under JAX_NUM_PROCESSES = {count}"
            )
        if count == 1:
            return None
        address = environ["JAX_COORDINATOR_ADDRESS"]
        if not address.rpartition(":")[2].isdigit():
            raise InputError(f"JAX_COORDINATOR_ADDRESS = {address!r} must be HOST:PORT")
        return {"coordinator_address": address, "num_processes": count, "process_id": process_id}
    return {} if _is_launched() or _on_tpu() else None


def _is_launched() -> bool:
    """Whether the environment says that a launcher started this process as one of several."""
    environ = os.environ
    counts = (environ.get(name, "1") for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"))
    in_kubernetes_job = "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ
    has_coordinator = bool(environ.get("JAX_COORDINATOR_ADDRESS"))
    return has_coordinator or in_kubernetes_job or any(count != "1" for count in counts)


def _on_tpu() -> bool:
    """Whether this machine has TPU chips that JAX may use; only then can it be part of a slice."""
    platforms = os.environ.get("JAX_PLATFORMS", "tpu")
    chips = any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))
    return "tpu" in platforms and chips and importlib.util.find_spec("libtpu") is not None


def _whole_number(name: str, text: str) -> int:
    if not text.isdigit():
        raise InputError(f"{name} = {text!r} must be a whole number")
    return int(text)


def raise_collectively(message: str) -> None:
    """Disconnects the hosts and raises. All hosts must call this, because each waits for the others to disconnect.

    Raises:
        InputError: always.
    """
    if is_multihost():
        jax.distributed.shutdown()
    raise InputError(message)


def _exit_now(code: int, message: str) -> None:
    """Exits without disconnecting, because hosts that wait for this one would never disconnect."""
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)
