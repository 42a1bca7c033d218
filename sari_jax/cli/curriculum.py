"""Commands that prepare a scored corpus for a run: split, order, pack, and how fast it is read."""

# Heavy imports stand inside the commands: `sari --help` and usage errors need not wait for JAX.

import argparse
from pathlib import Path

from sari_jax.cli.arguments import Commands, at_least, command, print_result
from sari_jax.errors import InputError


def add(data: Commands) -> None:
    part = command(
        data,
        "split",
        _split,
        "divide a corpus into questions for SFT and others for GRPO",
        "--data",
        "--out",
    )
    part.add_argument(
        "--sft", type=at_least(0), default=2000, help="questions with chains, as many as SARI's"
    )
    part.add_argument(
        "--rl", type=at_least(0), default=30_000, help="other questions, as many as SARI's"
    )
    part.add_argument(
        "--chains",
        choices=("structured", "free", "both", "none"),
        default="structured",
        help="the chain that a question for SFT must have; none: chains are written later",
    )
    part.add_argument("--seed", type=at_least(0), default=0)

    line = command(
        data, "order", _order, "write questions in a curriculum's order", "--data", "--out"
    )
    line.add_argument(
        "--order", default="easy_to_hard", help="or hard_to_easy, staged, random, as_written"
    )
    line.add_argument("--stages", type=at_least(1), default=3, help="stages of --order staged")
    line.add_argument("--seed", type=at_least(0), default=0)

    box = command(
        data, "pack", _pack, "put questions and their audio into one folder", "--data", "--out"
    )
    box.add_argument("--shard-clips", type=at_least(1), default=1024, help="clips in a shard")

    race = command(
        data, "bench", _bench, "measure how fast batches are read, or how long a run waited"
    )
    race.add_argument("--data", help="questions to read as a run does")
    race.add_argument("--model", help="model directory with the tokenizer to use")
    race.add_argument(
        "--workdir", help="a run: prints the share of its step time that it waited for data"
    )
    race.add_argument("--batches", type=at_least(1), default=50)
    race.add_argument("--batch-size", type=at_least(1), default=16)
    race.add_argument("--workers", type=at_least(0), nargs="+", default=[0, 1, 2])


def _split(args: argparse.Namespace) -> int:
    from sari_jax.atomic import new_directory
    from sari_jax.corpus.folder import write_report
    from sari_jax.corpus.split import split
    from sari_jax.data.ledger import Ledger
    from sari_jax.data.records import read_records, write_records

    ledger = Ledger()
    records = read_records(args.data)
    parts = split(records, ledger, sft=args.sft, rl=args.rl, seed=args.seed, chains=args.chains)
    with new_directory(Path(args.out)) as aside:
        for name, part in zip(("sft", "rl"), parts, strict=True):
            if part:
                write_records(aside / f"{name}.jsonl", part)
        sizes = {"sft": len(parts[0]), "rl": len(parts[1]), "seed": args.seed}
        report = write_report(aside, ledger, **sizes)
    print_result(args, report)
    return 0


def _order(args: argparse.Namespace) -> int:
    from sari_jax.data.curriculum import order
    from sari_jax.data.records import read_records, write_records

    records = read_records(args.data)
    indices = order(records, args.order, args.seed, stages=args.stages)
    write_records(args.out, (records[index] for index in indices))
    rates = [records[index].pass_rate for index in indices]
    report = {"read": len(records), "kept": len(indices), "dropped": {}, "order": args.order}
    print_result(args, report | {"first_pass_rate": rates[0], "last_pass_rate": rates[-1]})
    return 0


def _pack(args: argparse.Namespace) -> int:
    from sari_jax.atomic import new_directory
    from sari_jax.corpus.folder import write_report
    from sari_jax.data.ledger import Ledger
    from sari_jax.data.pack import pack
    from sari_jax.data.records import read_records

    ledger = Ledger()
    records = read_records(args.data)
    with new_directory(Path(args.out)) as aside:
        clips = pack(aside, records, ledger, clips=args.shard_clips)
        report = write_report(aside, ledger, clips=clips)
    print_result(args, report)
    return 0


def _bench(args: argparse.Namespace) -> int:
    from sari_jax.scale.reading import reading_speeds, table, wait_share

    if args.workdir:
        print_result(args, wait_share(args.workdir))
        return 0
    if not (args.data and args.model):
        raise InputError("name --data and --model to read, or the --workdir of a run")
    speeds = reading_speeds(
        args.data, args.model, args.workers, batches=args.batches, batch_size=args.batch_size
    )
    print_result(args, speeds, table(speeds))
    return 0
