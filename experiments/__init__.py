"""The experiments: each runs commands of `sari` in one process, with libraries as quiet as `sari` keeps them."""

from sari_jax.noise import keep_off

keep_off()  # before anything imports JAX
