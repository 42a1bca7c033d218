"""Early ends of a run: by SIGTERM, or by a notice that its machine will be taken away."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Stop = Callable[[], bool]


@contextmanager
def noticed() -> Iterator[Stop]:
    """Yields a function that says, before a step or a held-out batch, whether to end there: the same on every host.

    Every host calls it equally often. A notice to one host is enough: JAX finds the step that all of
    them can still reach, by the number of calls, since hosts that have not begun are at none. JAX's own handler of
    SIGTERM replaces this one when the hosts connect.
    """
    asked, calls = False, 0

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True

    def stop() -> bool:
        # Here, so that the handler stands while JAX is still imported.
        import numpy as np
        from jax.experimental import multihost_utils

        from sari_jax.parallel import hosts

        nonlocal asked, calls
        calls += 1
        if not hosts.is_multihost():
            return asked
        if calls == 1:  # a signal from before they connected is known to one host only
            asked = bool(hosts.all_gather(np.array([asked], np.int32)).any())
        return multihost_utils.reached_preemption_sync_point(calls) or asked

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
