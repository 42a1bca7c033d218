"""Commands that train, score, evaluate and plan."""

# Heavy imports stand inside the commands: `sari --help` and usage errors need not wait for JAX.

import argparse
import sys

from sari_jax.cli.arguments import (
    Commands,
    at_least,
    command,
    fraction,
    generation,
    overrides,
    print_result,
    rows,
)
from sari_jax.errors import InputError


def add(commands: Commands) -> None:
    fit = command(
        commands,
        "train",
        train,
        "SFT or GRPO by config.stage; the same command resumes",
        "--config",
        "--workdir",
    )
    overrides(fit)

    rate = command(
        commands,
        "score",
        score,
        "add each question's pass rate; drop questions with rate 0",
        "--model",
        "--data",
        "--out",
    )
    rate.add_argument("--attempts", type=at_least(1), default=16)
    rate.add_argument("--drop-solved", action="store_true", help="drop pass rate 1, too")
    rate.add_argument(
        "--max-bad-fraction", type=fraction, default=0.0, help="share of unreadable lines to accept"
    )
    generation(rate, temperature=1.0)
    rows(rate)

    judge = command(commands, "eval", evaluate, "answer a benchmark and score it; compare results")
    judge.add_argument("--benchmark", help="a name of docs/evaluation.md, or a JSONL of records")
    judge.add_argument("--out", help="a new folder for predictions, scores.json, judged.json")
    judge.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two such folders")
    judge.add_argument("--model")
    judge.add_argument("--questions", help="the file of a benchmark that is given by name")
    judge.add_argument("--predictions", help="score this file instead of answering")
    judge.add_argument("--audio-root", help="folder that the records' audio paths start from")
    generation(judge, temperature=0.0)
    rows(judge)

    _add_measurements(commands)


def _add_measurements(commands: Commands) -> None:
    """Adds the commands that plan and measure."""
    plan = command(
        commands,
        "compile",
        compile_for_tpu,
        "compile a run for a TPU slice without having one: does it fit, and what limits its speed",
        "--config",
        "--topology",
    )
    plan.add_argument("--slices", type=at_least(1), default=1)
    plan.add_argument(
        "--audio-seconds", type=float, default=30.0, help="length of each prompt's clip"
    )
    plan.add_argument("--text-tokens", type=at_least(1), default=128, help="length of each prompt")
    plan.add_argument("--programs", nargs="+", help="which ones to compile (default: all)")
    overrides(plan)

    race = command(
        commands, "bench", bench, "do the same work here and in PyTorch, in turns", "--config"
    )
    race.add_argument("--against", choices=("torch",), default="torch")
    race.add_argument("--rows", nargs="+", help="which comparisons to make (default: all)")
    race.set_defaults(takes_overrides=True)


def train(args: argparse.Namespace) -> int:
    from sari_jax.train.preemption import noticed

    # Before JAX is imported: a signal that comes meanwhile counts, too.
    with noticed() as stop:
        from sari_jax.api.training import train as run
        from sari_jax.parallel import hosts
        from sari_jax.train.config import freeze
        from sari_jax.train.flags import read_config_file

        with hosts.initialize_distributed():
            with hosts.raise_on_all_hosts():
                settings = freeze(read_config_file(args.config, args.overrides))
            last = run(settings, args.workdir, stop=stop)
            if hosts.is_primary():
                table = "\n".join(f"  {name:<20}{value:>14.6g}" for name, value in last.items())
                state = "done" if last["finished"] else "stopped"
                steps = f"{settings.stage} {state} after {last['step']} steps"
                print_result(args, last, f"{args.workdir}: {steps}\n{table}")
    return 0


def score(args: argparse.Namespace) -> int:
    from sari_jax.api.evaluation import score as rate
    from sari_jax.parallel import hosts

    with hosts.initialize_distributed():
        report = rate(
            args.model,
            args.data,
            args.out,
            attempts=args.attempts,
            drop_solved=args.drop_solved,
            max_bad_fraction=args.max_bad_fraction,
            style=args.style,
            temperature=args.temperature,
            max_tokens=args.max_tokens,
            rows=args.rows,
            seed=args.seed,
            dtype=args.dtype,
        )
        if hosts.is_primary():
            print_result(args, report)
    return 0


def evaluate(args: argparse.Namespace) -> int:
    if args.compare:
        return _compare(args)
    if not (args.benchmark and args.out):
        raise InputError(
            "sari eval needs --benchmark and --out, or --compare and two of its results"
        )
    from sari_jax.api.evaluation import evaluate as examine
    from sari_jax.evaluate.scores import doubts
    from sari_jax.parallel import hosts

    with hosts.initialize_distributed():
        scores = examine(
            args.benchmark,
            args.out,
            model=args.model,
            predictions=args.predictions,
            questions=args.questions,
            audio_root=args.audio_root,
            style=args.style,
            temperature=args.temperature,
            max_tokens=args.max_tokens,
            rows=args.rows,
            seed=args.seed,
            dtype=args.dtype,
        )
        if hosts.is_primary():
            for doubt in doubts(scores):
                print(f"sari: warning: {doubt}", file=sys.stderr)
            print_result(args, scores)
    return 0


def _compare(args: argparse.Namespace) -> int:
    from sari_jax.api.evaluation import compare
    from sari_jax.evaluate.compare import table

    result = compare(*args.compare)
    print_result(args, result, table(result, tuple(args.compare)))
    return 0


def bench(args: argparse.Namespace) -> int:
    from sari_jax.scale.bench import ROWS
    from sari_jax.scale.bench import bench as compare
    from sari_jax.scale.work import Work
    from sari_jax.train.config import freeze
    from sari_jax.train.flags import read_config_file

    work = freeze(read_config_file(args.config, args.overrides), Work)
    print_result(args, compare(work, tuple(args.rows or ROWS), _log))
    return 0


def compile_for_tpu(args: argparse.Namespace) -> int:
    from sari_jax.scale.compile import compile_run, table
    from sari_jax.scale.programs import Question
    from sari_jax.train.config import freeze
    from sari_jax.train.flags import read_config_file

    run = freeze(read_config_file(args.config, args.overrides))
    result = compile_run(
        run,
        args.topology,
        slices=args.slices,
        question=Question(audio_seconds=args.audio_seconds, text_tokens=args.text_tokens),
        only=args.programs or (),
        log=_log,
    )
    print_result(args, result, table(result))
    return 0 if result["fits"] else 1


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
