"""A benchmark's questions, answered by a model of ours or by anyone, judged and written down: `sari eval`."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sari_jax.atomic import new_directory, vacant
from sari_jax.data.records import Record, read_records
from sari_jax.data.styles import question_text
from sari_jax.digests import corpus_digest, files_digest
from sari_jax.errors import InputError
from sari_jax.evaluate.attempts import Attempts
from sari_jax.evaluate.benchmark import predict
from sari_jax.evaluate.benchmarks import (
    BENCHMARKS,
    Benchmark,
    as_records,
    is_version,
    read_objects,
    read_rows,
)
from sari_jax.evaluate.official import joined, score_rows, verdicts
from sari_jax.evaluate.scores import KEY, check_answered, judge, score_predictions
from sari_jax.generate.engine import Engine
from sari_jax.parallel import hosts

Scores = dict[str, Any]
Results = dict[str, Any]  # file in `out` -> its content


@dataclasses.dataclass(frozen=True)
class Examination:
    """What is asked, and who answers.

    Attributes:
        benchmark: a name of `BENCHMARKS`, or a JSONL of records.
        out: a new folder for the results.
        predictions: answers to judge; else `model` is asked.
        model: a model directory.
        attempts: how it is asked, once each.
        dtype: of its activations.
        questions: the file of a benchmark that is given by name.
        audio_root: where paths of sound start; unless given, where the questions lie.
    """

    benchmark: str
    out: Path
    predictions: str | None = None
    model: str | None = None
    attempts: Attempts | None = None
    dtype: str = "float32"
    questions: str | None = None
    audio_root: str | None = None

    @property
    def answers(self) -> Path:
        """The folder in which a model's answers are kept until all of them are there."""
        return self.out.with_name(f"{self.out.name}.attempts")


def examine(exam: Examination) -> Scores:
    """Writes predictions, `scores.json`, `judged.json` and what they depend on, `settings.json`, into `exam.out`.

    Of several hosts, all call this.

    Returns:
        The scores; see `score_predictions` and `score_rows`.

    Raises:
        InputError: what is given cannot be read or does not go together; nothing is written then.
    """
    if exam.benchmark in BENCHMARKS:
        results = _official(exam, BENCHMARKS[exam.benchmark])
    else:
        results = _records(exam)
    _write(exam, results)
    return results["scores.json"]


def _records(exam: Examination) -> Results:
    """A file of our own records."""
    with hosts.raise_on_all_hosts():
        records = read_records(
            exam.benchmark, audio_root=exam.audio_root, check_audio=not exam.predictions
        )
        _check_out(exam)
    if exam.predictions:
        predictions = read_objects(exam.predictions)
        more = _given(exam.predictions, exam.benchmark)
    else:
        predictions, more = _answered(exam, records, exam.benchmark)
    check_answered(predictions, KEY, exam.predictions or exam.benchmark)
    scores = {"benchmark": Path(exam.benchmark).stem, **score_predictions(records, predictions)}
    judged = [
        {"id": record.id, "right": verdict is True}
        for record, verdict in zip(records, judge(records, predictions), strict=True)
    ]
    own = {"predictions.json": predictions, "scores.json": scores, "judged.json": judged}
    return own | more


def _official(exam: Examination, benchmark: Benchmark) -> Results:
    """A benchmark of the field, by its own form and rule."""
    more: Results = {}
    with hosts.raise_on_all_hosts():
        if exam.model and not exam.questions:
            raise InputError(
                f"name the benchmark's file with --questions; {benchmark.name} is not downloaded"
            )
        questions = read_rows(exam.questions, benchmark) if exam.questions else []
        if questions:
            is_version(benchmark, questions)  # a wrong file is told before hours of answers
        _check_out(exam)
        if not exam.predictions:
            root = Path(exam.audio_root or Path(exam.questions).parent).absolute()
            records = as_records(questions, benchmark, root)
    if exam.predictions:
        predictions = read_rows(exam.predictions, benchmark, whole=not questions)
        is_version(benchmark, predictions)  # of another version they have another key, too
        check_answered(predictions, benchmark.key, exam.predictions)
        more = _given(exam.predictions, exam.questions)
    else:
        told, more = _answered(exam, records, exam.questions)
        predictions, more = [], more | {"completions.json": told}
        for row, answer in zip(questions, told, strict=True):
            if benchmark.answer:
                answer["answer"] = benchmark.answer(row)  # which may be none of the choices
            said = answer.get(KEY)  # none where the sound could not be taken
            given = {} if said is None else {benchmark.key: benchmark.said(row, said)}
            predictions.append({k: v for k, v in row.items() if k != benchmark.key} | given)
        questions = []  # they are whole in each prediction
    if benchmark.answer:
        rows = joined(benchmark, predictions, questions)
        scores = score_rows(benchmark, rows)
        more["judged.json"] = verdicts(benchmark, rows)
    else:
        count = sum(row.get(benchmark.key) is not None for row in predictions)
        scores = {"benchmark": benchmark.name, "version": benchmark.version}
        scores |= {"checked": is_version(benchmark, predictions)}
        scores |= {"rows": len(predictions), "answered": count}
    form = "predictions.jsonl" if benchmark.lines else "predictions.json"
    return {form: predictions, "scores.json": scores} | more


def _answered(
    exam: Examination, records: Sequence[Record], questions: str
) -> tuple[list[dict[str, Any]], Results]:
    """The model's answers, and all that they depend on."""
    attempts = exam.attempts
    with hosts.raise_on_all_hosts():
        engine = Engine(exam.model, dtype=exam.dtype)
        settings = attempts.settings_with(exam.model, questions, exam.dtype)
    hosts.assert_same_on_all_hosts(settings | hosts.versions())
    told = predict(engine, records, attempts, exam.answers, settings)
    if not any(KEY in answer for answer in told) and hosts.is_primary():
        shutil.rmtree(
            exam.answers, ignore_errors=True
        )  # nothing was answered: mended sounds are read anew
    check_answered(told, KEY, questions)
    first = records[0]
    text = question_text(first.question, first.choices, attempts.style)
    prompt = engine.processor.prompt_text(text, len(first.audio))
    return told, {"settings.json": settings | hosts.versions() | {"first_prompt": prompt}}


def _given(predictions: str, questions: str | None) -> Results:
    """`settings.json` of scores of given predictions: digests of the files that were read, and the code's versions."""
    read = {"predictions": files_digest([Path(predictions)])}
    if questions:
        read["data"] = corpus_digest(Path(questions))
    return {"settings.json": read | hosts.versions()}


def _check_out(exam: Examination) -> None:
    if not vacant(exam.out).parent.is_dir():
        raise InputError(f"{exam.out}: cannot be written: no such folder; name another --out")


def _write(exam: Examination, results: Results) -> None:
    """All of them at once; attempts that led there are not needed any more."""
    with hosts.raise_on_all_hosts():
        if not hosts.is_primary():
            return
        with new_directory(exam.out) as out:
            for name, value in results.items():
                # Escaped: JSON may hold half of a character, which no file can.
                if name.endswith(".jsonl"):
                    text = "".join(json.dumps(row) + "\n" for row in value)
                else:
                    text = json.dumps(value, indent=2) + "\n"
                (out / name).write_text(text, encoding="ascii")
        shutil.rmtree(exam.answers, ignore_errors=True)
