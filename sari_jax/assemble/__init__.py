"""Small real checkpoints, assembled from pinned packages as ordinary Hugging Face directories."""

from sari_jax.assemble.directory import assemble

__all__ = ["assemble"]
