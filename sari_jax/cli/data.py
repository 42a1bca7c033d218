"""Commands that make corpora: `sari data`."""

# Heavy imports stand inside the commands: `sari --help` and usage errors need not wait for JAX.

import argparse
from pathlib import Path

from sari_jax.cli import clean, curriculum, synthesize
from sari_jax.cli.arguments import Commands, at_least, command, group, print_result
from sari_jax.errors import InputError

STARTER = "starter"
SPLITS = ("train", "validation", "test")


def add(commands: Commands) -> None:
    data = group(commands, "data", "corpora")
    build = command(data, "build", _build, "build a corpus of records from a source", "--out")
    build.add_argument("source", metavar="SOURCE", help=f"{STARTER}, or one of docs/data.md")
    build.add_argument(
        "--seed", type=at_least(0), default=0, help="decides what is chosen at random"
    )
    given = build.add_argument_group("sources on disk")
    given.add_argument("--input", help="the source's file")
    given.add_argument(
        "--audio-root", help="folder that relative audio paths start from (default: the file's)"
    )
    given.add_argument("--limit", type=at_least(1), help="rows to read, at most")
    given.add_argument("--licence", help="licence of every record, in place of the source's")
    made = build.add_argument_group(STARTER)
    for split in SPLITS:
        made.add_argument(f"--{split}", type=at_least(0), help=f"number of questions of {split}")
    synthesize.add(data)
    clean.add(data)
    curriculum.add(data)


def _build(args: argparse.Namespace) -> int:
    from sari_jax.corpus.sources import SOURCES
    from sari_jax.corpus.sources.source import build
    from sari_jax.settings import nearest

    if args.source == STARTER:
        return _starter(args)
    if args.source not in SOURCES:
        known = [STARTER, *SOURCES]
        raise InputError(f"source {args.source!r} is unknown; {nearest(args.source, known)}")
    _refuse(args, SPLITS)
    source = SOURCES[args.source]
    if args.input is None:
        raise InputError(f"data build {source.name}: name --input; it needs {source.needs}")
    report = build(
        source,
        Path(args.out),
        path=Path(args.input),
        audio_root=Path(args.audio_root) if args.audio_root is not None else None,
        limit=args.limit,
        seed=args.seed,
        licence=args.licence,
    )
    print_result(args, report)
    return 0


def _starter(args: argparse.Namespace) -> int:
    from sari_jax.api.building import starter_corpus

    _refuse(args, ("input", "audio_root", "limit", "licence"))
    sizes = {split: size for split in SPLITS if (size := getattr(args, split)) is not None}
    print_result(args, starter_corpus(args.out, seed=args.seed, **sizes))
    return 0


def _refuse(args: argparse.Namespace, options: tuple[str, ...]) -> None:
    for option in options:
        if getattr(args, option) is not None:
            name = option.replace("_", "-")
            raise InputError(f"data build {args.source}: takes no --{name}; leave it out")
