"""The command that draws what runs did."""

import argparse

from sari_jax.cli.arguments import Commands, at_least, command, print_result


def add(commands: Commands) -> None:
    show = command(
        commands, "report", report, "write one page of runs and results, to read and to listen to"
    )
    show.add_argument(
        "folders", nargs="+", metavar="FOLDER", help="a workdir, or a folder that `sari eval` wrote"
    )
    show.add_argument("--out", help="the page, a new FILE.html or one to replace")
    show.add_argument("--png", metavar="DIR", help="each chart as a picture")
    show.add_argument("--megabytes", type=at_least(6), default=20, help="the page's largest size")


def report(args: argparse.Namespace) -> int:
    from sari_jax.api.reporting import report as write

    written = write(args.folders, args.out, pictures=args.png, megabytes=args.megabytes)
    print_result(args, written)
    return 0
