"""TPU slices that are not there: their chips, for the compiler, and what their makers say of them."""

import dataclasses
import os
import re
from typing import Any

from sari_jax.errors import InputError
from sari_jax.models.work import CHIPS

GIB = 2**30
# Of each kind of chip: memory as it is sold, what of it programs get, and the bytes a second that one chip sends along
# one axis of the torus, both ways at once: two links of 45 GB/s (v5e) or 90 GB/s ("How to Scale Your Model", Austin et
# al. 2025, chapter 2).
MEMORY = {"v5e": 16 * GIB, "v6e": 32 * GIB, "v5p": 96 * GIB}
USABLE = {"v5e": 15.75 * GIB, "v6e": 31.25 * GIB, "v5p": 95.74 * GIB}
LINKS = {"v5e": 90e9, "v6e": 180e9, "v5p": 180e9}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Slices of one kind of chip.

    Attributes:
        name: as given, "v5e:4x4".
        devices: JAX's, over all slices; nothing can run on them.
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
        """Bytes of a chip."""
        return MEMORY[self.kind]

    @property
    def usable(self) -> float:
        """Bytes of it that programs may have."""
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
        InputError: not KIND:AxB with a known kind, a shape that the kind does not come in, or no TPU compiler here.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)", name)
    if not found or found[1] not in MEMORY:
        raise InputError(
            f"topology {name!r} is not one of {', '.join(MEMORY)} with a shape, like v5e:4x4 or v5p:2x2x4"
        )
    # The compiler alone is wanted: it must neither look for chips nor mind another process that uses it.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    try:
        described = topologies.get_topology_desc(
            name,
            platform="tpu",
            **({"num_slices": slices} if slices > 1 else {}),
            # Hosts have four chips unless told; one that is sold alone has a host of its own.
            **({"chips_per_host_bounds": (1, 1, 1)} if set(found[2].split("x")) == {"1"} else {}),
        )
    except Exception as error:  # JAX raises several kinds
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"topology {name}: the TPU compiler does not give it ({reason}); is the shape one that {found[1]} comes in,"
            " and is libtpu there (pip install 'sari_jax[tpu]')?"
        ) from error
    return Topology(name, found[1], slices, tuple(described.devices))
