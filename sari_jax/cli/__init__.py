"""The command `sari`: options, one call of the Python API, one result.

The exit code is 0 on success, 1 on a failed check, and 2 on a usage or input error, which is one line. With --json,
standard output holds one JSON object and nothing else; logs and progress bars go to standard error.
"""

from sari_jax.cli.main import main

__all__ = ["main"]
