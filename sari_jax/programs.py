"""Compiled programs: how XLA is to make them, where they are kept, and how many a run made."""

import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from sari_jax.assets import cache

EVENT = "/jax/core/compile/backend_compile_duration"
# On a CPU, matrix products that run side by side share too few cores and wait for each other: one after the other, a
# decoded token takes half the time. An XLA that does not know a flag stops, so it is given to those alone that do.
ONE_BY_ONE = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
KNOWN_TO = ("0.10.", "0.11.", "0.12.")


def prepare() -> None:
    """Settings of JAX that have to be there before its first program; what the environment says already stays.

    Programs are kept between commands, beside the assets.
    """
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache() / "programs"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    flags = os.environ.get("XLA_FLAGS", "")
    flag, _ = ONE_BY_ONE.split("=")
    if importlib.metadata.version("jaxlib").startswith(KNOWN_TO) and flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {ONE_BY_ONE}".strip()


class Programs:
    """Programs that were compiled, or fetched from the persistent cache, while counting."""

    def __init__(self):
        self.count, self.seconds = 0, 0.0

    def __call__(self, event: str, seconds: float, **_: object) -> None:
        if event == EVENT:
            self.count, self.seconds = self.count + 1, self.seconds + seconds

    def __str__(self) -> str:
        return f"{self.count} programs compiled or fetched in {self.seconds:.1f} s"


@contextmanager
def counted() -> Iterator[Programs]:
    """Counts what is compiled inside: shapes that slip out of their buckets show here."""
    programs = Programs()
    jax.monitoring.register_event_duration_secs_listener(programs)
    try:
        yield programs
    finally:
        jax.monitoring.unregister_event_duration_listener(programs)
