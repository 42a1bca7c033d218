"""Many runs from one file: which they are, how they are started, and what came of each."""

from sari_jax.errors import require

require("sari sweep", "sweep", "matplotlib", "plotly", "psutil", "librosa")
