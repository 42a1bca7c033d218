"""Sweeps: many runs from one file, how they are started, and their results."""

from sari_jax.errors import require

require("sari sweep", "sweep", "matplotlib", "plotly", "psutil", "librosa")
