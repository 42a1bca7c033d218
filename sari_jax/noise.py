"""Silencing of Python's warnings and of libraries' lines about missing hardware, on machines without a TPU.

JAX asks an installed libtpu for TPUs at every start, and prints complaints if there is none. On a machine with a TPU
the same lines may be the only trace of a real fault, so nothing is hidden there.
"""

import logging
import os
import sys
import warnings
from collections.abc import Mapping, MutableMapping
from pathlib import Path

GOOGLE = "0x1ae0"  # the vendor of TPUs on the PCI bus
# Set on Cloud TPU and GKE hosts, or by a user who configures libtpu.
STATED = (
    "TPU_NAME",
    "TPU_WORKER_ID",
    "TPU_WORKER_HOSTNAMES",
    "TPU_ACCELERATOR_TYPE",
    "TPU_TOPOLOGY",
)
DEVICES = ("dev/accel*", "dev/accel/*", "dev/vfio/[0-9]*")
GPUS = ("dev/nvidia[0-9]*", "dev/nvidiactl", "dev/dxg", "dev/kfd")
# libtpu complains if these are missing. They describe a single host. Without a chip they start nothing, and the
# compiler of `sari compile` takes its topology from its own argument.
NO_TPU = {"TPU_ACCELERATOR_TYPE": "v5litepod-1", "TPU_WORKER_HOSTNAMES": "localhost"}
# Set for child processes, whose environment has NO_TPU already.
MARK = "SARI_WITHOUT_TPU"
LOGGERS = ("absl", "grain", "huggingface_hub", "orbax", "transformers")


def has_tpu(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this machine has a TPU, or its environment says so.

    Args:
        root: the folder that contains dev and sys.
    """
    if MARK not in environ and any(name in environ for name in STATED):
        return True
    if "tpu" in environ.get("JAX_PLATFORMS", ""):
        return True
    if any(any(root.glob(pattern)) for pattern in DEVICES):
        return True
    vendors = root.glob("sys/bus/pci/devices/*/vendor")
    return any(_text(vendor) == GOOGLE for vendor in vendors)


def _text(path: Path) -> str:
    """Returns the text of a file of the kernel's; "" if it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def has_gpu(root: Path = Path("/")) -> bool:
    return any(any(root.glob(pattern)) for pattern in GPUS)


def keep_off(root: Path = Path("/"), environ: MutableMapping[str, str] = os.environ) -> None:
    """Silences libraries on a machine without a TPU, in this process and in its child processes.

    It must run before JAX is imported. Variables that are set already stay, and so do -W and PYTHONWARNINGS. On a
    machine with a GPU, XLA's errors are printed: they may be about it.
    """
    if has_tpu(root, environ):
        return
    settings = NO_TPU | {MARK: "1", "TRANSFORMERS_VERBOSITY": "error", "GRPC_VERBOSITY": "NONE"}
    settings["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # transformers reads it when it loads weights
    if not has_gpu(root):
        settings["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if not sys.warnoptions:
        settings["PYTHONWARNINGS"] = "ignore"
        warnings.simplefilter("ignore")
    for name, value in settings.items():
        environ.setdefault(name, value)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
