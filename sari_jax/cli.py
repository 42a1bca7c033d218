"""`sari`: one thin command per capability.

Exit 0 on success, 1 on a failed check, 2 on a usage or input error with one clear line. With --json one JSON object
stands on standard output and nothing else; logs and progress bars go to standard error.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sari_jax.errors import InputError

# Heavy imports stand inside the commands: `sari --help` and usage errors need not wait for JAX.


def data_build(args: argparse.Namespace) -> int:
    from sari_jax.data.sources import SOURCES
    from sari_jax.train.config import nearest

    if args.source not in SOURCES:
        raise InputError(f"source {args.source!r} is unknown; {nearest(args.source, SOURCES)}")
    _tell(args, SOURCES[args.source](Path(args.out), seed=args.seed))
    return 0


def model_assemble(args: argparse.Namespace) -> int:
    from sari_jax.assemble import assemble

    assemble(args.name, Path(args.out), seed=args.seed)
    _tell(args, {"model": args.out}, f"{args.out}: a Hugging Face directory; next: sari train")
    return 0


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
                _tell(args, last, told)
    return 0


def score(args: argparse.Namespace) -> int:
    from sari_jax.data.curriculum import drop_hopeless
    from sari_jax.data.records import Record, read_records, write_records
    from sari_jax.data.styles import style
    from sari_jax.evaluate.difficulty import pass_rates
    from sari_jax.generate.engine import Engine

    records = read_records(args.data)
    engine = Engine(args.model, dtype=args.dtype)
    rated = pass_rates(
        engine, records, style(args.style), attempts=args.attempts, temperature=args.temperature,
        max_tokens=args.max_tokens, rows=args.rows, seed=args.seed,
    )  # fmt: skip
    scored = []

    def kept() -> Iterator[Record]:
        """Drawn by the writer, which thus finds out at once whether it can write."""
        scored.extend(rated)
        kept, _ = drop_hopeless(scored)
        if not kept:
            raise InputError(
                f"{args.data}: all {len(scored)} questions have pass rate 0; train the model further,"
                " or raise --attempts"
            )
        yield from kept

    write_records(args.out, kept())
    rates = [record.pass_rate for record in scored]
    _, counts = drop_hopeless(scored)
    told = {"scored": len(scored), "mean_pass_rate": sum(rates) / len(rates)}
    _tell(args, told | {name: counts[name] for name in ("kept", "hopeless")})
    return 0


def evaluate(args: argparse.Namespace) -> int:
    from sari_jax.atomic import new_directory
    from sari_jax.data.records import read_records
    from sari_jax.data.styles import style
    from sari_jax.evaluate.benchmark import predict
    from sari_jax.evaluate.scores import score_predictions
    from sari_jax.generate.engine import Engine

    if not (args.model or args.predictions):
        raise InputError(
            "sari eval needs --model DIR to answer with, or --predictions FILE to score"
        )
    records = read_records(
        args.benchmark, audio_root=args.audio_root, check_audio=not args.predictions
    )
    with new_directory(Path(args.out)) as out:
        if args.predictions:
            predictions = _read_json(args.predictions)
        else:
            engine = Engine(args.model, dtype=args.dtype)
            predictions = predict(
                engine, records, style(args.style), max_tokens=args.max_tokens,
                temperature=args.temperature, rows=args.rows, seed=args.seed,
            )  # fmt: skip
        scores = {"benchmark": Path(args.benchmark).stem, **score_predictions(records, predictions)}
        for name, value in (("predictions.json", predictions), ("scores.json", scores)):
            (out / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    _tell(args, scores)
    return 0


def ask(args: argparse.Namespace) -> int:
    from sari_jax.audio.files import load_waveform
    from sari_jax.data.processor import Shapes
    from sari_jax.data.styles import question_text, style
    from sari_jax.generate.engine import Engine

    begun = time.perf_counter()
    answer_style = style(args.style)
    waveforms = [load_waveform(path) for path in args.audio]
    engine = Engine(args.model, dtype=args.dtype)
    text = question_text(args.question, tuple(args.choices or ()), answer_style)
    example = engine.processor.encode(
        engine.processor.prompt_text(text, len(waveforms)), waveforms, args.audio
    )
    sampler = engine.sampler(1, args.max_tokens, args.temperature)
    (answered,) = engine.answer([example], sampler, Shapes(), rows=1, seed=args.seed)
    completion = answered.texts[0]
    told = {
        "prompt": example.text,
        "completion": completion,
        "token_ids": answered.token_ids[0],
        "sections": answer_style.sections(completion),
        "answer": answer_style.answer(completion),
        "seconds": time.perf_counter() - begun,
    }
    _tell(args, told, f"{completion}\n\nanswer: {told['answer']}  ({told['seconds']:.1f} s)")
    return 0


def export(args: argparse.Namespace) -> int:
    from sari_jax.hf.export import export as write_model
    from sari_jax.train.checkpoint import read_run
    from sari_jax.train.loop import trained_params

    run = read_run(Path(args.workdir))
    config, params = trained_params(run, Path(args.workdir), args.step)
    write_model(params, config, Path(run.model.path), Path(args.out))
    _tell(
        args,
        {"model": args.out},
        f"{args.out}: opens with transformers; try: sari check --model {args.out}",
    )
    return 0


def check(args: argparse.Namespace) -> int:
    from sari_jax.evaluate.parity import check as compare

    result = compare(Path(args.model))
    _tell(args, dataclasses.asdict(result))
    return 0 if result.ok else 1


def bench(args: argparse.Namespace) -> int:
    from sari_jax.scale.bench import ROWS
    from sari_jax.scale.bench import bench as compare
    from sari_jax.scale.work import Work
    from sari_jax.train.config import freeze
    from sari_jax.train.flags import read_config_file

    work = freeze(read_config_file(args.config, args.overrides), Work)
    report = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    _tell(args, compare(work, tuple(args.rows or ROWS), report))
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
    _tell(args, told, table(told))
    return 0 if told["fits"] else 1


def _read_json(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error


def _tell(args: argparse.Namespace, result: dict[str, Any], text: str | None = None) -> None:
    print(
        json.dumps(result, indent=None if args.json else 2, ensure_ascii=False)
        if args.json or not text
        else text
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sari", description=__doc__.splitlines()[0])
    groups = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        parent: Any, name: str, run: Any, help: str, *required: str
    ) -> argparse.ArgumentParser:
        sub = parent.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="one JSON object on standard output")
        for option in required:
            sub.add_argument(option, required=True)
        return sub

    data = groups.add_parser("data", help="corpora").add_subparsers(
        required=True, metavar="COMMAND"
    )
    build = command(data, "build", data_build, "build a corpus of records from a source", "--out")
    build.add_argument("source", metavar="SOURCE")
    build.add_argument("--seed", type=_at_least(0), default=0)

    model = groups.add_parser("model", help="models").add_subparsers(
        required=True, metavar="COMMAND"
    )
    make = command(model, "assemble", model_assemble, "assemble a small real checkpoint", "--out")
    make.add_argument("name", choices=("nano", "smol"))
    make.add_argument("--seed", type=_at_least(0), default=0)

    fit = command(
        groups,
        "train",
        train,
        "SFT or GRPO by config.stage; the same command resumes",
        "--config",
        "--workdir",
    )
    fit.set_defaults(takes_overrides=True)

    rate = command(
        groups,
        "score",
        score,
        "add each question's pass rate; rate 0 is dropped",
        "--model",
        "--data",
        "--out",
    )
    rate.add_argument("--attempts", type=_at_least(1), default=16)
    _generation(rate, temperature=1.0)
    _rows(rate)

    judge = command(
        groups, "eval", evaluate, "answer a benchmark and score it", "--benchmark", "--out"
    )
    judge.add_argument("--model")
    judge.add_argument("--predictions", help="score this file instead of answering")
    judge.add_argument("--audio-root", help="folder that the records' audio paths start from")
    _generation(judge, temperature=0.0)
    _rows(judge)

    question = command(groups, "ask", ask, "ask a model about sound files", "--model", "--question")
    question.add_argument("--audio", nargs="+", required=True)
    question.add_argument("--choices", nargs="+")
    _generation(question, temperature=0.0)

    out = command(
        groups, "export", export, "a run's model as a Hugging Face directory", "--workdir", "--out"
    )
    out.add_argument("--step", type=int)

    plan = command(
        groups,
        "compile",
        compile_for_tpu,
        "compile a run for a TPU slice that is not there: does it fit, and what bounds it",
        "--config",
        "--topology",
    )
    plan.add_argument("--slices", type=_at_least(1), default=1)
    plan.add_argument("--audio-seconds", type=float, default=30.0, help="of each prompt's clip")
    plan.add_argument("--text-tokens", type=_at_least(1), default=128, help="of each prompt")
    plan.add_argument("--programs", nargs="+", help="those to compile; all unless given")
    plan.set_defaults(takes_overrides=True)

    race = command(
        groups, "bench", bench, "the same work here and in PyTorch, side by side", "--config"
    )
    race.add_argument("--against", choices=("torch",), default="torch")
    race.add_argument("--rows", nargs="+", help="comparisons to make; all unless given")
    race.set_defaults(takes_overrides=True)

    command(
        groups, "check", check, "the same inputs through transformers and through us", "--model"
    )
    return parser


def _generation(sub: argparse.ArgumentParser, *, temperature: float) -> None:
    sub.add_argument("--style", default="structured")
    sub.add_argument("--temperature", type=float, default=temperature)
    sub.add_argument("--max-tokens", type=_at_least(1), default=512)
    sub.add_argument("--seed", type=_at_least(0), default=0)
    dtypes = ("float32", "bfloat16")
    sub.add_argument("--dtype", choices=dtypes, default=dtypes[0], help="of activations")


def _rows(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--rows", type=_at_least(1), default=8, help="prompts per batch")


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} must be at least {least}")
        return int(text)

    return number


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest and not getattr(args, "takes_overrides", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.overrides = rest
    try:
        from sari_jax.programs import prepare

        prepare()
        return args.run(args)
    except InputError as error:
        print(f"sari: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
