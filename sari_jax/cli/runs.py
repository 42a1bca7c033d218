"""Commands that train, score, evaluate and plan."""

# Heavy imports stand inside the commands: `sari --help` and usage errors need not wait for JAX.

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from sari_jax.cli.arguments import (
    Commands,
    at_least,
    command,
    fraction,
    generation,
    read_json,
    rows,
    tell,
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
    fit.set_defaults(takes_overrides=True)

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
    judge.add_argument("--out", help="a new folder for predictions.json, scores.json, judged.json")
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
    plan.set_defaults(takes_overrides=True)

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

        with hosts.joined():
            with hosts.together():
                run = freeze(read_config_file(args.config, args.overrides))
            last = run_to_the_end(run, Path(args.workdir), stop)
            table = "\n".join(f"  {name:<20}{value:>14.6g}" for name, value in last.items())
            state = "done" if last["finished"] else "stopped"
            if hosts.first():
                told = f"{args.workdir}: {run.stage} {state} after {last['step']} steps\n{table}"
                tell(args, last, told)
    return 0


def score(args: argparse.Namespace) -> int:
    from sari_jax.data.ledger import Ledger
    from sari_jax.data.records import read_records, write_records
    from sari_jax.data.styles import style
    from sari_jax.evaluate.attempts import Attempts
    from sari_jax.evaluate.difficulty import rated, sorted_out
    from sari_jax.generate.engine import Engine
    from sari_jax.parallel import hosts
    from sari_jax.report.difficulty import report_difficulty

    out = Path(args.out)
    attempts = Attempts(
        style(args.style), args.attempts, args.temperature, args.max_tokens, args.rows, args.seed
    )
    with hosts.joined():
        ledger = Ledger()
        with hosts.together():
            if not out.parent.is_dir():
                raise InputError(
                    f"{out}: cannot be written: no such folder; make it, or name another --out"
                )
            records = read_records(args.data, max_bad_fraction=args.max_bad_fraction, ledger=ledger)
            if not records:
                raise InputError(f"{args.data}: none of {ledger.read} lines is a question")
            engine = Engine(args.model, dtype=args.dtype)
            settings = attempts.settings_with(args.model, args.data, args.dtype)
        hosts.agree(settings | hosts.versions())
        scored = rated(engine, records, attempts, out.with_suffix(".attempts"), settings)
        kept = sorted_out(scored, ledger, drop_solved=args.drop_solved)
        with hosts.together():
            if hosts.first():
                told = report_difficulty(
                    out, [r.record.pass_rate for r in scored], args.attempts, ledger
                )
            if not kept:
                raise InputError(
                    f"{args.data}: none of {len(scored)} questions is left ({ledger.report()['dropped']}); train the"
                    f" model further, or raise --attempts. {out.with_suffix('.png')} shows their pass rates"
                )
            if hosts.first():
                write_records(out, kept)
                tell(args, told)
    return 0


def evaluate(args: argparse.Namespace) -> int:
    from sari_jax.evaluate.benchmarks import BENCHMARKS
    from sari_jax.parallel import hosts

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
    judge = _judge_official if args.benchmark in BENCHMARKS else _judge_records
    with hosts.joined():
        scores = judge(args)
        if hosts.first():
            tell(args, scores)
    return 0


def _compare(args: argparse.Namespace) -> int:
    from sari_jax.evaluate.compare import compare, read_judged, table

    told = compare(*map(read_judged, args.compare))
    tell(args, told, table(told, tuple(args.compare)))
    return 0


def _judge_records(args: argparse.Namespace) -> dict[str, Any]:
    """A file of our own records."""
    from sari_jax.data.records import read_records
    from sari_jax.evaluate.scores import judge, score_predictions
    from sari_jax.parallel import hosts

    with hosts.together():
        records = read_records(
            args.benchmark, audio_root=args.audio_root, check_audio=not args.predictions
        )
        _vacant(args)
    if args.predictions:
        predictions, more = read_json(args.predictions), {}
    else:
        predictions, more = _predicted(args, records, args.benchmark)
    scores = {"benchmark": Path(args.benchmark).stem, **score_predictions(records, predictions)}
    judged = [
        {"id": record.id, "right": verdict is True}
        for record, verdict in zip(records, judge(records, predictions), strict=True)
    ]
    _write_results(args, predictions=predictions, scores=scores, judged=judged, **more)
    return scores


def _judge_official(args: argparse.Namespace) -> dict[str, Any]:
    """A benchmark of the field, by its own form and rule."""
    from sari_jax.evaluate.benchmarks import BENCHMARKS, as_records, read_rows
    from sari_jax.evaluate.official import joined, score_rows, verdicts
    from sari_jax.parallel import hosts

    benchmark, more = BENCHMARKS[args.benchmark], {}
    with hosts.together():
        if args.model and not args.questions:
            raise InputError(
                f"name the benchmark's file with --questions; {benchmark.name} is not downloaded"
            )
        questions = read_rows(args.questions, benchmark) if args.questions else []
        _vacant(args)
        if not args.predictions:
            root = Path(args.audio_root or Path(args.questions).parent).absolute()
            records = as_records(questions, benchmark, root)
    if args.predictions:
        predictions = read_rows(args.predictions, benchmark, whole=not questions)
    else:
        told, more = _predicted(args, records, args.questions)
        predictions, more = [], more | {"completions": told}
        for row, answer in zip(questions, told, strict=True):
            said = answer.get("model_output")  # none where the sound could not be taken
            given = {} if said is None else {benchmark.key: benchmark.said(row, said)}
            predictions.append(row | given)
    if benchmark.answer:
        scores = score_rows(benchmark, predictions, questions)
        more["judged"] = verdicts(benchmark, joined(benchmark, predictions, questions))
    else:
        count = sum(benchmark.key in row for row in predictions)
        scores = {"benchmark": benchmark.name, "version": benchmark.version}
        scores |= {"rows": len(predictions), "answered": count}
    _write_results(args, predictions=predictions, scores=scores, **more)
    return scores


def _predicted(
    args: argparse.Namespace, records: list[Any], questions: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Answers, kept beside --out until all of them are there; and all that they depend on."""
    from sari_jax.data.styles import question_text, style
    from sari_jax.evaluate.attempts import Attempts
    from sari_jax.evaluate.benchmark import predict
    from sari_jax.generate.engine import Engine
    from sari_jax.parallel import hosts

    attempts = Attempts(
        style(args.style), 1, args.temperature, args.max_tokens, args.rows, args.seed
    )
    with hosts.together():
        engine = Engine(args.model, dtype=args.dtype)
        settings = attempts.settings_with(args.model, questions, args.dtype)
    hosts.agree(settings | hosts.versions())
    told = predict(engine, records, attempts, _kept(args), settings)
    first = records[0]
    text = question_text(first.question, first.choices, attempts.style)
    prompt = engine.processor.prompt_text(text, len(first.audio))
    return told, {"settings": settings | hosts.versions() | {"first_prompt": prompt}}


def _kept(args: argparse.Namespace) -> Path:
    out = Path(args.out)
    return out.with_name(f"{out.name}.attempts")


def _vacant(args: argparse.Namespace) -> None:
    from sari_jax.atomic import vacant

    if not vacant(args.out).parent.is_dir():
        raise InputError(f"{args.out}: cannot be written: no such folder; name another --out")


def _write_results(args: argparse.Namespace, **values: Any) -> None:
    """All of them at once; attempts that led there are not needed any more."""
    import shutil

    from sari_jax.atomic import new_directory
    from sari_jax.parallel import hosts

    with hosts.together():
        if not hosts.first():
            return
        with new_directory(Path(args.out)) as out:
            for name, value in values.items():
                text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
                (out / f"{name}.json").write_text(text, encoding="utf-8")
        shutil.rmtree(_kept(args), ignore_errors=True)


def bench(args: argparse.Namespace) -> int:
    from sari_jax.scale.bench import ROWS
    from sari_jax.scale.bench import bench as compare
    from sari_jax.scale.work import Work
    from sari_jax.train.config import freeze
    from sari_jax.train.flags import read_config_file

    work = freeze(read_config_file(args.config, args.overrides), Work)
    report = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    tell(args, compare(work, tuple(args.rows or ROWS), report))
    return 0


def compile_for_tpu(args: argparse.Namespace) -> int:
    from sari_jax.scale.compile import compile_run, table
    from sari_jax.scale.programs import Question
    from sari_jax.train.config import freeze
    from sari_jax.train.flags import read_config_file

    run = freeze(read_config_file(args.config, args.overrides))
    told = compile_run(
        run,
        args.topology,
        slices=args.slices,
        question=Question(args.audio_seconds, args.text_tokens),
        only=args.programs or (),
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    tell(args, told, table(told))
    return 0 if told["fits"] else 1
