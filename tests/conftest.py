"""The whole suite runs on eight fake CPU devices, offline, under runtime checks of every shape and type."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Before JAX, transformers or a subprocess of a test reads them.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".cache" / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"

import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

already = [name for name in sys.modules if name.startswith("sari_jax.")]
assert not already, f"imported before the type checks were installed: {already}"
install_import_hook("sari_jax", "typechecks.check")


@pytest.fixture
def make_record():
    """A function that makes a valid record, with any field changed."""
    from sari_jax.data.records import Clip, Record

    def make(**changes) -> Record:
        fields = dict(
            id="r1",
            audio=(Clip("dog.wav"),),
            question="Which animal is heard?",
            choices=("cat", "dog", "hen"),
            answer_index=1,
            task="sound",
            source="made up",
            licence="CC0-1.0",
            chain_structured={
                "planning": "I listen for an animal.",
                "caption": "Something barks twice.",
                "reasoning": "Dogs bark.",
                "summary": "It is a dog.",
            },
            chain_free="It barks, so it is a dog.",
        )
        return Record(**(fields | changes))

    return make
