"""Compiled programs: flags for XLA, the persistent cache, and a count of compilations."""

import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from sari_jax.assets import cache

EVENT = "/jax/core/compile/backend_compile_duration"
# On a CPU, matrix products that run at once share too few cores and wait for each other. One after the other, a decoded
# token takes half the time. XLA stops at an unknown flag, so only versions that know this one get it.
ONE_BY_ONE = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
KNOWN_TO = ("0.10.", "0.11.", "0.12.")


def prepare() -> None:
    """Configures JAX before its first program. Settings of the environment stay.

    Programs are cached between commands, beside the assets.
    """
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache() / "programs"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    flags = os.environ.get("XLA_FLAGS", "")
    flag, _ = ONE_BY_ONE.split("=")
    if importlib.metadata.version("jaxlib").startswith(KNOWN_TO) and flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {ONE_BY_ONE}".strip()


class Programs:
    """A count of programs that were compiled, or fetched from the persistent cache."""

    def __init__(self):
        self.count = 0
        self.seconds = 0.0

    def __call__(self, event: str, seconds: float, **_: object) -> None:
        if event == EVENT:
            self.count += 1
            self.seconds += seconds

    def __str__(self) -> str:
        return f"{self.count} programs compiled or fetched in {self.seconds:.1f} s"


@contextmanager
def counted() -> Iterator[Programs]:
    """Counts the programs compiled inside. Shapes outside their buckets show as additional programs."""
    programs = Programs()
    jax.monitoring.register_event_duration_secs_listener(programs)
    try:
        yield programs
    finally:
        jax.monitoring.unregister_event_duration_listener(programs)
