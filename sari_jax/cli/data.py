"""Commands that make corpora: `sari data`."""

# Heavy imports stand inside the commands: `sari --help` and usage errors need not wait for JAX.

import argparse
from pathlib import Path

from sari_jax.cli import clean
from sari_jax.cli.arguments import Commands, at_least, command, group, tell
from sari_jax.errors import InputError


def add(commands: Commands) -> None:
    data = group(commands, "data", "corpora")
    build = command(data, "build", _build, "build a corpus of records from a source", "--out")
    build.add_argument("source", metavar="SOURCE")
    build.add_argument("--seed", type=at_least(0), default=0)
    clean.add(data)


def _build(args: argparse.Namespace) -> int:
    from sari_jax.data.sources import SOURCES
    from sari_jax.train.config import nearest

    if args.source not in SOURCES:
        raise InputError(f"source {args.source!r} is unknown; {nearest(args.source, SOURCES)}")
    tell(args, SOURCES[args.source](Path(args.out), seed=args.seed))
    return 0
