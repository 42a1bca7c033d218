"""Benchmarks answered and scored, results compared, and questions scored by how often a model answers them right."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sari_jax.data.ledger import Ledger
from sari_jax.data.records import Record, read_records, write_records
from sari_jax.data.styles import style as style_named
from sari_jax.errors import InputError
from sari_jax.evaluate import difficulty
from sari_jax.evaluate.attempts import AttemptSettings
from sari_jax.evaluate.compare import compare_results
from sari_jax.evaluate.difficulty import Rated, drop_by_pass_rate
from sari_jax.evaluate.examination import Examination, examine
from sari_jax.generate.engine import Engine
from sari_jax.parallel import hosts


def evaluate(
    benchmark: Path | str,
    out: Path | str,
    *,
    model: Path | str | None = None,
    predictions: Path | str | None = None,
    questions: Path | str | None = None,
    audio_root: Path | str | None = None,
    style: str = "structured",
    temperature: float = 0.0,
    max_tokens: int | None = None,
    rows: int = 8,
    seed: int = 0,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Answers a benchmark with a model, or takes given predictions, and scores the answers by the benchmark's rule.

    The same call goes on where it was interrupted. On several hosts all of them call it, inside
    `with sari.distributed():`.

    Args:
        benchmark: a name of docs/evaluation.md, or a JSONL of records.
        out: a new folder for predictions, scores.json and judged.json.
        model: the model directory that answers.
        predictions: a file of answers to score instead.
        questions: the file of a benchmark that is given by name.
        audio_root: the folder that audio paths start from; else that of the questions.
        style, temperature, max_tokens, seed: see `Model.ask`.
        rows: questions in a batch.
        dtype: of activations.

    Returns:
        The scores, as scores.json holds them.

    Raises:
        InputError: what is given cannot be read or does not go together; nothing is written then.
    """
    if predictions is None and model is None:
        raise InputError(
            "an evaluation needs a model to answer: model (--model DIR); or a file to score: predictions (--predictions"
            " FILE)"
        )
    attempts = None
    if predictions is None:
        attempts = _attempts(1, style, temperature, max_tokens, rows, seed)
    return examine(
        Examination(
            benchmark=str(benchmark),
            out=Path(out),
            predictions=_text(predictions),
            model=_text(model),
            attempts=attempts,
            dtype=dtype,
            questions=_text(questions),
            audio_root=_text(audio_root),
        )
    )


def compare(first: Path | str, second: Path | str) -> dict[str, Any]:
    """Compares two folders that `evaluate` wrote for the same questions.

    Returns:
        `rows`; `accuracy` of both; their `difference` with a 95 % `interval`; the `p_value` of McNemar's test; which
        questions the second `gained` and `lost`.

    Raises:
        InputError: a folder holds no result, or they are not of the same questions.
    """
    return compare_results(first, second)


def score(
    model: Path | str,
    data: Path | str,
    out: Path | str,
    *,
    attempts: int = 16,
    drop_solved: bool = False,
    max_bad_fraction: float = 0.0,
    style: str = "structured",
    temperature: float = 1.0,
    max_tokens: int | None = None,
    rows: int = 8,
    seed: int = 0,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Adds to each question its pass rate: the fraction of a model's attempts that are right.

    Questions with pass rate 0 are dropped. The same call goes on where it was interrupted. On several hosts all of
    them call it, inside `with sari.distributed():`; the first one writes.

    Args:
        model: a model directory.
        data: a JSONL of records.
        out: the new JSONL. A report and a picture of the pass rates are written beside it.
        attempts: sampled completions of each question.
        drop_solved: drop questions with pass rate 1, too.
        max_bad_fraction: of unreadable lines, before the call is refused.
        style, temperature, max_tokens, seed: see `Model.ask`.
        rows: questions in a batch.
        dtype: of activations.

    Returns:
        How many questions were read, kept and dropped, and their pass rates; on other hosts than the first, {}.

    Raises:
        InputError: what is given cannot be read, or no question is left.
    """
    path = Path(out)
    plan = _attempts(attempts, style, temperature, max_tokens, rows, seed)
    ledger = Ledger()
    with hosts.raise_on_all_hosts():
        records = _questions(Path(data), path, max_bad_fraction, ledger)
        engine = Engine(model, dtype=dtype)
        settings = plan.settings_with(str(model), str(data), dtype)
    hosts.assert_same_on_all_hosts(settings | hosts.versions())
    scored = difficulty.rated(engine, records, plan, _folder(path), settings)
    kept = drop_by_pass_rate(scored, ledger, drop_solved=drop_solved)
    with hosts.raise_on_all_hosts():
        return _report(Path(data), path, attempts, ledger, scored, kept)


def _attempts(
    count: int, style: str, temperature: float, max_tokens: int | None, rows: int, seed: int
) -> AttemptSettings:
    answer_style = style_named(style)
    return AttemptSettings(
        style=answer_style,
        count=count,
        temperature=temperature,
        max_tokens=max_tokens or answer_style.max_tokens,
        rows=rows,
        seed=seed,
    )


def _questions(data: Path, out: Path, max_bad_fraction: float, ledger: Ledger) -> list[Record]:
    if not out.parent.is_dir():
        raise InputError(
            f"{out}: cannot be written: no such folder; make it, or name another out (--out)"
        )
    records = read_records(data, max_bad_fraction=max_bad_fraction, ledger=ledger)
    if not records:
        raise InputError(f"{data}: none of {ledger.read} lines is a question")
    return records


def _report(
    data: Path,
    out: Path,
    attempts: int,
    ledger: Ledger,
    scored: Sequence[Rated],
    kept: Sequence[Record],
) -> dict[str, Any]:
    """Writes the questions that are kept, and what became of all of them.

    Raises:
        InputError: none is kept.
    """
    from sari_jax.report.difficulty import report_difficulty

    report: dict[str, Any] = {}
    if hosts.is_primary():
        rates = [one.record.pass_rate for one in scored]
        report = report_difficulty(out, rates, attempts, ledger)
    if all(one.error for one in scored):
        if hosts.is_primary():
            # Nothing was answered. Audio that is mended is read again.
            shutil.rmtree(_folder(out), ignore_errors=True)
        raise InputError(
            f"{data}: none of {len(scored)} questions could be asked; the first: {scored[0].error}"
        )
    if not kept:
        dropped = ledger.report()["dropped"]
        why = "; ".join(f"{reason}: {count}" for reason, count in dropped.items())
        raise InputError(
            f"{data}: none of {len(scored)} questions is left ({why}); train the model further, or raise attempts"
            f" (--attempts). {out.with_suffix('.report.json')} has their pass rates"
        )
    if hosts.is_primary():
        write_records(out, kept)
    return report


def _folder(out: Path) -> Path:
    """Returns the folder of a scored file's attempts."""
    return out.with_suffix(".attempts")


def _text(path: Path | str | None) -> str | None:
    return None if path is None else str(path)
