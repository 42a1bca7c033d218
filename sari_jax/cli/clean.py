"""The command that cleans corpora: `sari data clean`."""

import argparse

from sari_jax.cli.arguments import Commands, at_least, command, fraction, print_result


def add(data_commands: Commands) -> None:
    what = "drop bad audio, duplicates and benchmark questions; balance answers; look for leaks"
    sub = command(data_commands, "clean", _clean, what, "--out")
    sub.add_argument("--data", nargs="+", required=True, metavar="FILE", help="records, JSONL")
    sub.add_argument(
        "--against",
        nargs="+",
        default=[],
        metavar="FILE",
        help="benchmarks whose questions to drop, JSON or JSONL",
    )
    sub.add_argument(
        "--against-audio", nargs="+", default=[], metavar="DIR", help="folders of their audio"
    )
    sub.add_argument(
        "--max-bad-fraction", type=fraction, default=1.0, help="share of unreadable lines to accept"
    )
    sub.add_argument("--seconds", type=_seconds, default=30.0, help="longest clip")
    sub.add_argument(
        "--balance-lengths",
        action="store_true",
        help="drop records until the right choice is the longest as often as by chance",
    )
    sub.add_argument(
        "--workers",
        type=at_least(0),
        default=0,
        help="processes that decode audio; 0: one per core, 32 at most",
    )
    sub.add_argument("--seed", type=at_least(0), default=0)


def _clean(args: argparse.Namespace) -> int:
    from sari_jax.corpus.clean.cleaning import Cleaning, clean

    plan = Cleaning(
        against=tuple(args.against),
        against_audio=tuple(args.against_audio),
        max_bad_fraction=args.max_bad_fraction,
        seconds=args.seconds,
        balance_lengths=args.balance_lengths,
        workers=args.workers,
        seed=args.seed,
    )
    print_result(args, clean(args.data, args.out, plan))
    return 0


def _seconds(text: str) -> float:
    if not 0 < float(text) <= 3600:
        raise argparse.ArgumentTypeError(f"{text} must be over 0 and at most 3600 seconds")
    return float(text)
