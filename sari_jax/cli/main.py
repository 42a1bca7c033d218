"""The command line: finds the command, runs it, and prints bad input as one line."""

import argparse
import functools
import sys

from sari_jax.cli import data, models, report, runs, sweep
from sari_jax.errors import InputError, one_line
from sari_jax.noise import keep_off


def main(argv: list[str] | None = None) -> int:
    keep_off()  # before anything imports JAX
    args = parse(argv)
    try:
        from sari_jax.programs import prepare

        prepare()
        return args.run(args)
    except InputError as error:
        print(f"sari: {one_line(str(error))}", file=sys.stderr)
        return 2


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Returns a command's options, with `overrides` of its config's settings; a usage error exits with 2."""
    parser = every_command()
    args, rest = parser.parse_known_args(argv)
    if rest and not getattr(args, "takes_overrides", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.overrides = rest
    return args


@functools.cache
def every_command() -> argparse.ArgumentParser:
    """Returns the parser of all commands, which keeps nothing of what it has parsed."""
    parser = argparse.ArgumentParser(
        prog="sari", description="post-training for audio-language models"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for part in (data, models, runs, sweep, report):
        part.add(commands)
    return parser
