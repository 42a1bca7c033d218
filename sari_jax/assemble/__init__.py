"""Small real checkpoints, assembled from pinned packages and written as Hugging Face directories."""

from sari_jax.assemble.directory import assemble
from sari_jax.assemble.nano import NanoSize

__all__ = ["NanoSize", "assemble"]
