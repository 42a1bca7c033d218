"""TPU slices for ahead-of-time compilation: their chips as the compiler describes them, and their data sheets."""

import dataclasses
import os
import re
from typing import Any

from sari_jax.errors import InputError, install
from sari_jax.models.work import CHIPS

GIB = 2**30
# Bytes of each kind of chip: the memory as it is sold.
MEMORY = {"v5e": 16 * GIB, "v6e": 32 * GIB, "v5p": 96 * GIB}
# Bytes of it that programs get.
USABLE = {"v5e": 15.75 * GIB, "v6e": 31.25 * GIB, "v5p": 95.74 * GIB}
# Bytes per second that one chip sends along one axis of the torus, in both directions together: two links of 45 GB/s
# (v5e) or 90 GB/s ("How to Scale Your Model", Austin et al. 2025, chapter 2).
LINKS = {"v5e": 90e9, "v6e": 180e9, "v5p": 180e9}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """Slices of one kind of chip.

    Attributes:
        name: the user's name of it, such as "v5e:4x4".
        kind: the kind of chip, such as "v5e".
        devices: JAX devices of all slices. Programs can be compiled for them but not run.
    """

    name: str
    kind: str
    slices: int
    devices: tuple[Any, ...]

    @property
    def chips(self) -> int:
        return len(self.devices)

    @property
    def memory(self) -> int:
        """Bytes of a chip's memory."""
        return MEMORY[self.kind]

    @property
    def usable(self) -> float:
        """Bytes of a chip's memory that programs may use."""
        return USABLE[self.kind]

    @property
    def peak(self) -> float:
        """bfloat16 FLOP/s of a chip."""
        return CHIPS[self.kind][0]

    @property
    def bandwidth(self) -> float:
        """Bytes per second of a chip's memory."""
        return CHIPS[self.kind][1]

    @property
    def link(self) -> float:
        """Bytes per second that a chip sends to its neighbours along one axis."""
        return LINKS[self.kind]


def topology(name: str, slices: int = 1) -> Topology:
    """Asks the TPU compiler for the chips of a slice.

    Raises:
        InputError: the name is not KIND:AxB with a known kind, the kind does not come in that shape, or the TPU
            compiler is not installed.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)", name)
    if not found or found[1] not in MEMORY:
        raise InputError(
            f"topology {name!r} is not one of {', '.join(MEMORY)} with a shape, like v5e:4x4 or v5p:2x2x4"
        )
    # Only the compiler is used: it must not look for chips, and several processes may use it at once.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    try:
        described = topologies.get_topology_desc(
            name,
            platform="tpu",
            **({"num_slices": slices} if slices > 1 else {}),
            # By default a host has four chips; a single chip has a host of its own.
            **({"chips_per_host_bounds": (1, 1, 1)} if set(found[2].split("x")) == {"1"} else {}),
        )
    except Exception as error:  # JAX raises several kinds
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"topology {name}: the TPU compiler does not know it ({reason}); name a shape that {found[1]} comes in, and"
            f" check that libtpu is installed ({install('tpu')})"
        ) from error
    return Topology(name=name, kind=found[1], slices=slices, devices=tuple(described.devices))
