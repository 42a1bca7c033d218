"""Commands that train, score, evaluate and plan."""

# Heavy imports stand inside the commands: `sari --help` and usage errors need not wait for JAX.

import argparse
import shutil
import sys
from pathlib import Path

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
        "add each question's pass rate; rate 0 is dropped",
        "--model",
        "--data",
        "--out",
    )
    rate.add_argument("--attempts", type=at_least(1), default=16)
    rate.add_argument("--drop-solved", action="store_true", help="leave out pass rate 1 too")
    rate.add_argument("--max-bad-fraction", type=fraction, default=0.0, help="of unreadable lines")
    generation(rate, temperature=1.0)
    rows(rate)

    judge = command(commands, "eval", evaluate, "answer a benchmark and score it; compare results")
    judge.add_argument("--benchmark", help="one of docs/evaluation.md, or a JSONL of records")
    judge.add_argument("--out", help="a new folder for predictions, scores.json, judged.json")
    judge.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two such folders")
    judge.add_argument("--model")
    judge.add_argument("--questions", help="the file of a benchmark that is given by name")
    judge.add_argument("--predictions", help="score this file instead of answering")
    judge.add_argument("--audio-root", help="folder that the records' audio paths start from")
    generation(judge, temperature=0.0)
    rows(judge)

    plan = command(
        commands,
        "compile",
        compile_for_tpu,
        "compile a run for a TPU slice that is not there: does it fit, and what bounds it",
        "--config",
        "--topology",
    )
    plan.add_argument("--slices", type=at_least(1), default=1)
    plan.add_argument("--audio-seconds", type=float, default=30.0, help="of each prompt's clip")
    plan.add_argument("--text-tokens", type=at_least(1), default=128, help="of each prompt")
    plan.add_argument("--programs", nargs="+", help="those to compile; all unless given")
    overrides(plan)

    race = command(
        commands, "bench", bench, "the same work here and in PyTorch, side by side", "--config"
    )
    race.add_argument("--against", choices=("torch",), default="torch")
    race.add_argument("--rows", nargs="+", help="comparisons to make; all unless given")
    race.set_defaults(takes_overrides=True)


def train(args: argparse.Namespace) -> int:
    from sari_jax.train.preemption import noticed

    with noticed() as stop:
        from sari_jax.parallel import hosts
        from sari_jax.train.config import freeze
        from sari_jax.train.flags import read_config_file
        from sari_jax.train.loop import train as run_to_the_end

        with hosts.initialize_distributed():
            with hosts.raise_on_all_hosts():
                run = freeze(read_config_file(args.config, args.overrides))
            last = run_to_the_end(run, Path(args.workdir), stop)
            table = "\n".join(f"  {name:<20}{value:>14.6g}" for name, value in last.items())
            state = "done" if last["finished"] else "stopped"
            if hosts.is_primary():
                told = f"{args.workdir}: {run.stage} {state} after {last['step']} steps\n{table}"
                print_result(args, last, told)
    return 0


def score(args: argparse.Namespace) -> int:
    from sari_jax.data.ledger import Ledger
    from sari_jax.data.records import read_records, write_records
    from sari_jax.data.styles import style
    from sari_jax.evaluate.attempts import Attempts
    from sari_jax.evaluate.difficulty import drop_by_pass_rate, rated
    from sari_jax.generate.engine import Engine
    from sari_jax.parallel import hosts
    from sari_jax.report.difficulty import report_difficulty

    out, asked = Path(args.out), style(args.style)
    max_tokens = args.max_tokens or asked.max_tokens
    attempts = Attempts(asked, args.attempts, args.temperature, max_tokens, args.rows, args.seed)
    with hosts.initialize_distributed():
        ledger = Ledger()
        with hosts.raise_on_all_hosts():
            if not out.parent.is_dir():
                raise InputError(
                    f"{out}: cannot be written: no such folder; make it, or name another --out"
                )
            records = read_records(args.data, max_bad_fraction=args.max_bad_fraction, ledger=ledger)
            if not records:
                raise InputError(f"{args.data}: none of {ledger.read} lines is a question")
            engine = Engine(args.model, dtype=args.dtype)
            settings = attempts.settings_with(args.model, args.data, args.dtype)
        hosts.assert_same_on_all_hosts(settings | hosts.versions())
        scored = rated(engine, records, attempts, out.with_suffix(".attempts"), settings)
        kept = drop_by_pass_rate(scored, ledger, drop_solved=args.drop_solved)
        with hosts.raise_on_all_hosts():
            if hosts.is_primary():
                told = report_difficulty(
                    out, [r.record.pass_rate for r in scored], args.attempts, ledger
                )
            if all(error for _, error in scored):
                if hosts.is_primary():  # nothing was answered: mended sounds are read anew
                    shutil.rmtree(out.with_suffix(".attempts"), ignore_errors=True)
                raise InputError(
                    f"{args.data}: none of {len(scored)} questions could be asked; the first: {scored[0].error}"
                )
            if not kept:
                why = "; ".join(
                    f"{reason}: {n}" for reason, n in ledger.report()["dropped"].items()
                )
                raise InputError(
                    f"{args.data}: none of {len(scored)} questions is left ({why}); train the model further, or raise"
                    f" --attempts. {out.with_suffix('.report.json')} has their pass rates"
                )
            if hosts.is_primary():
                write_records(out, kept)
                print_result(args, told)
    return 0


def evaluate(args: argparse.Namespace) -> int:
    if args.compare:
        return _compare(args)
    if not (args.benchmark and args.out):
        raise InputError(
            "sari eval needs --benchmark and --out, or --compare and two of its results"
        )
    if not (args.model or args.predictions):
        raise InputError(
            "sari eval needs --model DIR to answer with, or --predictions FILE to score"
        )
    from sari_jax.data.styles import style
    from sari_jax.evaluate.attempts import Attempts
    from sari_jax.evaluate.examination import Examination, examine
    from sari_jax.evaluate.scores import doubts
    from sari_jax.parallel import hosts

    attempts = None
    if not args.predictions:
        asked = style(args.style)
        max_tokens = args.max_tokens or asked.max_tokens
        attempts = Attempts(asked, 1, args.temperature, max_tokens, args.rows, args.seed)
    exam = Examination(
        args.benchmark, Path(args.out), args.predictions, args.model, attempts, args.dtype,
        args.questions, args.audio_root,
    )  # fmt: skip
    with hosts.initialize_distributed():
        scores = examine(exam)
        if hosts.is_primary():
            for doubt in doubts(scores):
                print(f"sari: warning: {doubt}", file=sys.stderr)
            print_result(args, scores)
    return 0


def _compare(args: argparse.Namespace) -> int:
    from sari_jax.evaluate.compare import compare_results, table

    told = compare_results(*args.compare)
    print_result(args, told, table(told, tuple(args.compare)))
    return 0


def bench(args: argparse.Namespace) -> int:
    from sari_jax.scale.bench import ROWS
    from sari_jax.scale.bench import bench as compare
    from sari_jax.scale.work import Work
    from sari_jax.train.config import freeze
    from sari_jax.train.flags import read_config_file

    work = freeze(read_config_file(args.config, args.overrides), Work)
    report = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    print_result(args, compare(work, tuple(args.rows or ROWS), report))
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
        log=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print_result(args, result, table(result))
    return 0 if result["fits"] else 1
