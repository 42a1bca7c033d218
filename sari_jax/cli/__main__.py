"""Runs `sari` as `python -m sari_jax.cli`."""

import sys

from sari_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
