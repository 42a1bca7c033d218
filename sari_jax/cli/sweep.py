"""The command that makes many runs of one file."""

# Heavy imports stand inside the commands: `sari --help` and usage errors need not wait for JAX.

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sari_jax.cli.arguments import Commands, at_least, command, print_result
from sari_jax.errors import InputError, require


def add(commands: Commands) -> None:
    what = "many runs from one file; the same command resumes"
    many = command(commands, "sweep", sweep, what, "--out")
    many.add_argument("file", metavar="FILE", help="Python with get_runs(), or suggest(trial)")
    many.add_argument(
        "--launch",
        choices=("local", "print", "xpk", "queued", "none"),
        default="local",
        help="local: processes here; print: commands; xpk, queued: on TPU slices; none: tables of what there is",
    )
    many.add_argument(
        "--at-once", type=at_least(1), metavar="N", help="local runs at once, at most"
    )
    many.add_argument(
        "--settings",
        metavar="FILE",
        help="for --launch xpk and queued (default: tpu_scripts/slice.env)",
    )
    many.add_argument(
        "--trials", type=at_least(1), metavar="N", help="trials of an Optuna study, in all"
    )
    many.add_argument(
        "--storage", metavar="URL", help="where the study is kept (default: OUT/study.db)"
    )


def sweep(args: argparse.Namespace) -> int:
    if args.storage and not args.trials:
        raise InputError("--storage is for a study; name --trials N, too")
    if args.trials and args.launch != "local":
        raise InputError(
            f"--launch {args.launch}: a study starts its runs itself, as it learns from them; leave --launch out"
        )
    if args.at_once and args.launch != "local":
        raise InputError(f"--at-once is for local runs; leave it out with --launch {args.launch}")
    if args.settings and args.launch not in ("xpk", "queued"):
        raise InputError("--settings is for --launch xpk and queued; leave it out")
    return {"local": _launch, "none": _look}.get(args.launch, _list)(args)


def _list(args: argparse.Namespace) -> int:
    from sari_jax.sweep.plan import read_runs
    from sari_jax.sweep.slices import SCRIPTS, launches

    runs = read_runs(Path(args.file), Path(args.out), elsewhere=args.launch != "print")
    left = [run for run in runs if not run.finished]
    for run in left:
        run.write()
    if args.launch == "print":
        lines = {run.name: shlex.join(["sari", *run.command]) for run in left}
    else:
        settings = Path(args.settings) if args.settings else SCRIPTS / "slice.env"
        lines = launches(runs, settings, args.launch)
    if not left:
        print(f"sweep: all {len(runs)} runs are finished", file=sys.stderr)
    if lines or args.json:
        print_result(args, {"commands": lines}, "\n".join(lines.values()))
    return 0


def _look(args: argparse.Namespace) -> int:
    """Prints how far all runs are, wherever they run."""
    from sari_jax.sweep.local import alone
    from sari_jax.sweep.plan import read_runs
    from sari_jax.sweep.results import FINISHED, Results

    out = Path(args.out)
    runs = read_runs(Path(args.file), out, elsewhere=True)
    with alone(out):
        summary = Results(out, runs, looking=True).summary()
    print_result(args, summary, _text(summary))
    return 0 if len(summary[FINISHED]) == len(runs) else 1


def _launch(args: argparse.Namespace) -> int:
    from sari_jax.sweep.local import alone
    from sari_jax.sweep.plan import read_runs
    from sari_jax.sweep.results import FINISHED, Results

    out = Path(args.out)
    runs = [] if args.trials else read_runs(Path(args.file), out)
    with alone(out) as lock:
        results = Results(out, runs)
        study = _study(args, results) if args.trials else None
        if study:
            study.recall()
            todo = study.runs(args.trials)
        else:
            left = [run for run in runs if results.rows[run.name].state != FINISHED]
            for run in left:
                run.write()
            todo = iter(left)
        try:
            stopped = _start(args, todo, args.trials or len(runs), results, study, lock)
        finally:
            summary = results.summary()
    done = len(summary[FINISHED]) == len(results.rows)
    if study and stopped:  # the trials that are still to come have no rows
        done = False
    if stopped and not done:
        print(
            "sweep: stopped; the runs have saved a checkpoint, and the same command goes on",
            file=sys.stderr,
        )
    print_result(args, summary, _text(summary))
    return 0 if done else 1


def _start(
    args: argparse.Namespace, todo: Iterator[Any], total: int, results: Any, study: Any, lock: IO
) -> bool:
    """Runs all of them, and returns whether a signal stopped it.

    Raises:
        InputError: after the last run, if the study could not take the results of some.
    """
    from tqdm import tqdm

    from sari_jax.sweep.local import Launcher, most_at_once
    from sari_jax.sweep.plan import Planned
    from sari_jax.sweep.results import FAILED, FINISHED, RUNNING

    def num_ended() -> int:
        return sum(row.state in (FINISHED, FAILED) for row in results.rows.values())

    refused: list[InputError] = []
    bar = tqdm(total=total, initial=num_ended(), desc="sweep", disable=None)

    def ended(run: Planned, state: str, reason: str) -> None:
        row = results.put(run, state, reason)
        if study:
            try:
                study.record(row)
            except InputError as error:
                # The other runs go on. When the sweep is started again, the study gets this result.
                refused.append(error)
        if state == FAILED:
            tqdm.write(f"{run.name} failed: {reason}", file=sys.stderr)
        bar.update(num_ended() - bar.n)

    def begun(run: Planned) -> None:
        results.put(run, RUNNING)

    launcher = Launcher(min(args.at_once or sys.maxsize, most_at_once()))
    with bar:
        launcher(todo, begun, ended, lock)
    if refused:
        raise refused[0]
    return launcher.stopping


def _study(args: argparse.Namespace, results: Any) -> Any:
    require("sari sweep --trials", "sweep", "optuna")
    from sari_jax.sweep.study import Study

    return Study(Path(args.file), Path(args.out), args.storage, results)


def _text(summary: dict[str, Any]) -> str:
    states = ("finished", "failed", "stopped", "begun", "waiting")
    counts = ", ".join(f"{len(summary[state])} {state}" for state in states if summary[state])
    lines = [f"{summary['out']}: {counts}; {summary['results']}"]
    if summary["best"]:
        by = f" by {summary['by']}" if summary["by"] else ""
        page = f"; {summary['report']} shows {summary['shown']}" if summary["report"] else ""
        lines.append(f"  best{by}: {summary['best']}{page}")
    lines += [f"  failed: {name}: {reason}" for name, reason in summary["failed"].items()]
    return "\n".join(lines)
