"""Cleaning: bad audio, benchmark questions, duplicates, unbalanced answers and leaks."""

from sari_jax.errors import require

require("sari data clean", "corpus", "rapidfuzz", "sklearn")
