"""The command that draws what runs did."""

import argparse
from pathlib import Path

from sari_jax.cli.arguments import Commands, at_least, command, print_result
from sari_jax.errors import InputError, require


def add(commands: Commands) -> None:
    show = command(commands, "report", report, "one page of runs and results, to read and to hear")
    show.add_argument(
        "folders", nargs="+", metavar="FOLDER", help="a workdir, or what `sari eval` wrote"
    )
    show.add_argument("--out", help="the page, a new FILE.html or one to replace")
    show.add_argument("--png", metavar="DIR", help="each chart as a picture")
    show.add_argument("--megabytes", type=at_least(6), default=20, help="the page's largest size")


def report(args: argparse.Namespace) -> int:
    require("sari report", "report", "plotly", "matplotlib", "librosa")
    from sari_jax.report.experiment import read_experiment
    from sari_jax.report.page import write_page, write_pictures

    if not (args.out or args.png):
        raise InputError("sari report needs --out FILE.html, or --png DIR")
    if args.out and Path(args.out).suffix != ".html":
        raise InputError(f"{args.out}: a page's name ends in .html; name another --out")
    experiment = read_experiment(args.folders)
    told = {}
    if args.png:
        told["pictures"] = write_pictures(experiment, Path(args.png))
    if args.out:
        told |= write_page(experiment, Path(args.out), args.megabytes)
    print_result(args, told)
    return 0
