"""The experiments: each runs `sari`'s commands in one process, as silent as they are."""

from sari_jax.noise import keep_off

keep_off()  # before anything imports JAX
