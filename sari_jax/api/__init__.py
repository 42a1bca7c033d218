"""The Python API: what `import sari_jax as sari` offers. The commands of `sari` are thin over it."""

import warnings

from sari_jax.noise import keep_off

with warnings.catch_warnings():  # which Python warnings are shown stays the caller's choice
    keep_off()

from sari_jax.programs import prepare  # noqa: E402  after the above, as it imports JAX

# Programs are compiled as those of the commands are, and shared with them.
prepare()
