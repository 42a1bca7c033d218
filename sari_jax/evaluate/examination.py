"""An evaluation: a benchmark's questions answered by a model or by given predictions, judged and written."""

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
from sari_jax.evaluate.attempts import AttemptSettings
from sari_jax.evaluate.benchmark import predict
from sari_jax.evaluate.benchmarks import (
    BENCHMARKS,
    Benchmark,
    Row,
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
# A file's name in `out` -> its content.
Results = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examination:
    """An evaluation's questions, and the model or the file that answers them.

    Attributes:
        benchmark: a name of `BENCHMARKS`, or a JSONL of records.
        out: a new folder for the results.
        predictions: a file of answers to judge; without it, `model` answers.
        model: a model directory.
        attempts: settings with which the model answers each question once.
        dtype: the dtype of the model's activations.
        questions: the file of a benchmark that is given by name.
        audio_root: the folder that audio paths start from (default: that of the questions).
    """

    benchmark: str
    out: Path
    predictions: str | None = None
    model: str | None = None
    attempts: AttemptSettings | None = None
    dtype: str = "float32"
    questions: str | None = None
    audio_root: str | None = None

    @property
    def answers(self) -> Path:
        """The folder in which a model's answers are kept until there are all of them."""
        return self.out.with_name(f"{self.out.name}.attempts")


def examine(exam: Examination) -> Scores:
    """Writes predictions, `scores.json`, `judged.json` and `settings.json`, all that they depend on, into `exam.out`.

    All hosts call this.

    Returns:
        The scores; see `score_predictions` and `score_rows`.

    Raises:
        InputError: the files cannot be read or do not go together; nothing is written then.
    """
    if exam.benchmark in BENCHMARKS:
        results = _official(exam, BENCHMARKS[exam.benchmark])
    else:
        results = _records(exam)
    _write(exam, results)
    return results["scores.json"]


def _records(exam: Examination) -> Results:
    """Returns the results on a file of records."""
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
    """Returns the results on a benchmark of the field, by its own form and rule."""
    more: Results = {}
    with hosts.raise_on_all_hosts():
        if exam.model and not exam.questions:
            raise InputError(
                f"name the benchmark's file with --questions; {benchmark.name} is not downloaded"
            )
        questions = read_rows(exam.questions, benchmark) if exam.questions else []
        if questions:
            is_version(benchmark, questions)  # raises for a wrong file before hours of answers
        _check_out(exam)
        if not exam.predictions:
            root = Path(exam.audio_root or Path(exam.questions).parent).absolute()
            records = as_records(questions, benchmark, root)
    if exam.predictions:
        predictions = read_rows(exam.predictions, benchmark, whole=not questions)
        is_version(benchmark, predictions)  # first: another version has another key, too
        check_answered(predictions, benchmark.key, exam.predictions)
        more = _given(exam.predictions, exam.questions)
    else:
        answers, more = _answered(exam, records, exam.questions)
        predictions = [
            _prediction(benchmark, row, answer)
            for row, answer in zip(questions, answers, strict=True)
        ]
        more |= {"completions.json": answers}
        questions = []  # each prediction holds its own
    if benchmark.answer:
        rows = joined(benchmark, predictions, questions)
        scores = score_rows(benchmark, rows)
        more["judged.json"] = verdicts(benchmark, rows)
    else:
        count = sum(row.get(benchmark.key) is not None for row in predictions)
        scores = {"benchmark": benchmark.name, "version": benchmark.version}
        scores |= {"checked": is_version(benchmark, predictions)}
        scores |= {"rows": len(predictions), "answered": count}
    form = "predictions.jsonl" if benchmark.is_jsonl else "predictions.json"
    return {form: predictions, "scores.json": scores} | more


def _prediction(benchmark: Benchmark, row: Row, answer: dict[str, Any]) -> Row:
    """Returns a benchmark's row with the model's answer, which gets the row's right text."""
    if benchmark.answer:
        answer["answer"] = benchmark.answer(row)  # may be none of the choices
    said = answer.get(KEY)  # None if the audio could not be used
    given = {} if said is None else {benchmark.key: benchmark.format_prediction(row, said)}
    return {name: value for name, value in row.items() if name != benchmark.key} | given


def _answered(
    exam: Examination, records: Sequence[Record], questions: str
) -> tuple[list[dict[str, Any]], Results]:
    """Returns the model's answers, and all that they depend on."""
    attempts = exam.attempts
    with hosts.raise_on_all_hosts():
        engine = Engine(exam.model, dtype=exam.dtype)
        settings = attempts.settings_with(exam.model, questions, exam.dtype)
    hosts.assert_same_on_all_hosts(settings | hosts.versions())
    answers = predict(engine, records, attempts, exam.answers, settings)
    if not any(KEY in answer for answer in answers) and hosts.is_primary():
        # Nothing was answered. Audio that is mended is read again.
        shutil.rmtree(exam.answers, ignore_errors=True)
    check_answered(answers, KEY, questions)
    first = records[0]
    text = question_text(first.question, first.choices, attempts.style)
    prompt = engine.processor.prompt_text(text, len(first.audio))
    return answers, {"settings.json": settings | hosts.versions() | {"first_prompt": prompt}}


def _given(predictions: str, questions: str | None) -> Results:
    """Returns `settings.json` for given predictions: digests of the files that were read, and the code's versions."""
    read = {"predictions": files_digest([Path(predictions)])}
    if questions:
        read["data"] = corpus_digest(Path(questions))
    return {"settings.json": read | hosts.versions()}


def _check_out(exam: Examination) -> None:
    if not vacant(exam.out).parent.is_dir():
        raise InputError(f"{exam.out}: cannot be written: no such folder; name another --out")


def _write(exam: Examination, results: Results) -> None:
    """Writes all files at once, and removes the attempts that they were made of."""
    with hosts.raise_on_all_hosts():
        if not hosts.is_primary():
            return
        with new_directory(exam.out) as out:
            for name, value in results.items():
                # Escaped: JSON may hold an unpaired surrogate, and UTF-8 may not.
                if name.endswith(".jsonl"):
                    text = "".join(json.dumps(row) + "\n" for row in value)
                else:
                    text = json.dumps(value, indent=2) + "\n"
                (out / name).write_text(text, encoding="ascii")
        shutil.rmtree(exam.answers, ignore_errors=True)
