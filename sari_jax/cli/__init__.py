"""`sari`: one thin command per capability.

Exit 0 on success, 1 on a failed check, 2 on a usage or input error with one clear line. With --json one JSON object
stands on standard output and nothing else; logs and progress bars go to standard error.
"""

from sari_jax.cli.main import main

__all__ = ["main"]
