"""The field's benchmarks: the form of their files, and whether an answer is right by their own rules.

Each keeps a prediction in the row of its question, under a key of its own. Different versions of a benchmark have
different names here: MMAU's test-mini was published twice, and papers before May 2025 report the first.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sari_jax import foreign
from sari_jax.data.answers import choice_index
from sari_jax.data.records import TASKS, Clip, Record
from sari_jax.errors import InputError
from sari_jax.evaluate.matching import matches
from sari_jax.evaluate.voicebench import LETTERS, letter

Row = dict[str, Any]
# Ours; VoiceBench adds no words.
SPOKEN = "Answer the question that is asked in the recording."


def _unchanged(row: Row, answer: str) -> str:
    return answer


def _question(row: Row) -> Any:
    return row["question"]


def _wrong(row: Row, prediction: str) -> float | None:
    return 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark's form and rule.

    Attributes:
        version: the version that the name stands for.
        rule: the source of the rule.
        key: the field of a prediction.
        audio: the field of a row's audio path.
        groups: fields by which scores are grouped, one or "two / of them"; a value may be a list of texts.
        answer_fields: the fields that hold a row's choices and its answer.
        choices: row -> its choices.
        answer: row -> its right text; None if the answers are withheld.
        is_right: (row, prediction) -> whether it is right; None for an unreadable prediction, which counts as wrong.
        format_prediction: (row, the extracted answer) -> the prediction to write under `key`.
        question: row -> the question to ask beside the audio.
        name_of_row: the field that identifies a row.
        task: the task of a row that names none.
        absent: the prediction that the benchmark's script assumes for a row without the key; None if it skips the row.
        score_of_unreadable: (row, prediction) -> the score that the script gives a prediction that it cannot read. It
            is 0 for wrong, or between 0 and 1 for the chance of the script's guess. None leaves the row out.
        guesses: whether the script guesses one of the choices for a prediction that it cannot read.
        is_jsonl: whether its files are JSON lines rather than a list.
        size: the number of its rows, for a benchmark that has no digest in `DIGESTS`; None if it is unknown.
    """

    name: str
    version: str
    rule: str
    key: str
    audio: str
    groups: tuple[str, ...]
    answer_fields: tuple[str, ...]
    choices: Callable[[Row], Any]
    answer: Callable[[Row], Any] | None
    is_right: Callable[[Row, str], bool | None]
    format_prediction: Callable[[Row, str], str] = _unchanged
    question: Callable[[Row], Any] = _question
    name_of_row: str = "id"
    task: str = "sound"
    absent: str | None = None
    score_of_unreadable: Callable[[Row, str], float | None] = _wrong
    guesses: bool = False
    is_jsonl: bool = False
    size: int | None = None

    @property
    def group_fields(self) -> list[str]:
        return list(dict.fromkeys(field for group in self.groups for field in group.split(" / ")))

    def counted(self, row: Row, verdict: bool | None) -> float | None:
        """Returns what the benchmark's script counts for a row: 1 for a right answer; None if it leaves the row out.

        Args:
            verdict: the result of `is_right`; None if there is no prediction.
        """
        said = row.get(self.key, self.absent)
        if said is None:
            return None
        return self.score_of_unreadable(row, said) if verdict is None else float(verdict)


def _matched(row: Row, prediction: str) -> bool:
    return matches(row["answer"], prediction, row["choices"])


def _bare(prediction: str) -> str:
    return prediction.strip().replace("\n", "")


def _lettered(row: Row, prediction: str) -> bool | None:
    """Returns whether a response names the right choice, as MMSU's script reads it.

    The letter is the response's first character, or else its last but one. None if neither is one of A to D.
    """
    said = _bare(prediction)
    for one in (said[:1], said[-2:-1]):
        if one and one in LETTERS:
            return row[f"choice_{one.lower()}"] == row["answer_gt"]
    return None


def _failed(row: Row, prediction: str) -> float | None:
    """Returns what MMSU's script counts for a response without a letter.

    No answer at all is wrong; the script writes "None" for a failed one. Other responses it leaves out.
    """
    return 0.0 if _bare(prediction) in ("", "None") else None


def _letter(row: Row, answer: str) -> str:
    index = choice_index(answer, _four(row))
    return "" if index is None else LETTERS[index]


def _four(row: Row) -> list[Any]:
    return [row[f"choice_{letter.lower()}"] for letter in LETTERS]


def _mmau(name: str, version: str, answer: Callable[[Row], Any] | None) -> Benchmark:
    return Benchmark(
        name=name,
        version=version,
        rule="string_match of MMAU's evaluation.py",
        key="model_output",
        audio="audio_id",
        groups=("task", "category", "sub-category", "difficulty"),
        answer_fields=("choices", "answer"),
        choices=_choices,
        answer=answer,
        is_right=_matched,
    )


def _choices(row: Row) -> Any:
    return row["choices"]


def _answer(row: Row) -> Any:
    return row["answer"]


def _spoken(row: Row, prediction: str) -> bool | None:
    said = letter(prediction)
    return None if said is None else said == row["reference"]


def _chance(row: Row, prediction: str) -> float:
    return list(LETTERS).count(row["reference"]) / len(LETTERS)


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        _mmau("mmau-original", "test-mini as first published", _answer),
        _mmau("mmau-v05.15.25", "test-mini of 15 May 2025", _answer),
        _mmau("mmau-test", "test; its answers are withheld", None),
        Benchmark(
            name="mmar",
            version="1,000 rows",
            rule="string_match of MMAR's evaluation.py",
            key="answer_prediction",
            audio="audio_path",
            groups=("modality", "category", "sub-category"),
            answer_fields=("choices", "answer"),
            choices=_choices,
            answer=_answer,
            is_right=_matched,
        ),
        Benchmark(
            name="mmsu",
            version="MMSU_Bench; not VoiceBench's mmsu",
            rule="calculate_accuracy_per_task_and_category of MMSU's script: the letter at either end of a response",
            key="response",
            audio="audio_path",
            groups=("task_name", "category", "sub-category", "category / sub-category"),
            answer_fields=(*(f"choice_{letter.lower()}" for letter in LETTERS), "answer_gt"),
            choices=_four,
            answer=lambda row: row["answer_gt"],
            is_right=_lettered,
            format_prediction=_letter,
            task="speech",
            absent="",
            score_of_unreadable=_failed,
            is_jsonl=True,
        ),
        Benchmark(
            name="voicebench-mmsu",
            version="VoiceBench's mmsu, 3,074 rows; not MMSU_Bench",
            rule="the phrases of MCQEvaluator of VoiceBench's mcq.py; an unreadable answer is wrong in `accuracy` and"
            " counts as the chance of a guess in `official`",
            key="response",
            audio="audio_path",
            groups=("category",),
            answer_fields=("reference",),
            # The recording alone says what the letters stand for.
            choices=lambda row: list(LETTERS),
            answer=lambda row: row["reference"],
            is_right=_spoken,
            question=lambda row: SPOKEN,
            name_of_row="question_id",
            task="speech",
            score_of_unreadable=_chance,
            guesses=True,
            is_jsonl=True,
            size=3074,
        ),
    )
}

# The content of the 1,000 rows of MMAU's two test-minis: `rows_digest` of the files as they were published.
DIGESTS = {
    "mmau-original": "84a841c156868b3b",
    "mmau-v05.15.25": "cc0683d50b920776",
}

# Fractions, and where they were published. VoiceBench's contain what its script guessed at random.
PUBLISHED: dict[str, dict[str, dict[str, float | str]]] = {
    "mmau-original": {
        "Qwen2-Audio-Instruct": {
            "source": "MMAU leaderboard", "sound": 0.5495, "music": 0.5098, "speech": 0.4204, "all": 0.4920,
        },
        "R1-AQA": {
            "source": "arXiv 2503.11197", "sound": 0.6937, "music": 0.6677, "speech": 0.5736, "all": 0.6450,
        },
        "Qwen2.5-Omni-7B": {
            "source": "arXiv 2503.20215", "sound": 0.6787, "music": 0.6916, "speech": 0.5976, "all": 0.6560,
        },
        "SARI (Qwen2.5-Omni)": {
            "source": "arXiv 2504.15900", "sound": 0.7275, "music": 0.6722, "speech": 0.6126, "all": 0.6708,
        },
        "Ke-Omni-R 7B": {
            "source": "Ke-Omni-R's repository", "sound": 0.6937, "music": 0.6946, "speech": 0.6787, "all": 0.6890,
        },
        "Omni-R1": {
            "source": "arXiv 2505.09439", "sound": 0.736, "music": 0.743, "speech": 0.661, "all": 0.713,
        },
        "Audio-Thinker (Omni)": {
            "source": "arXiv 2508.08039", "sound": 0.7748, "music": 0.7036, "speech": 0.7337, "all": 0.7370,
        },
    },
    "voicebench-mmsu": {
        "Qwen2-Audio": {"source": "VoiceBench leaderboard", "all": 0.3572},
        "Qwen2.5-Omni-7B": {"source": "VoiceBench leaderboard", "all": 0.6132},
        "Whisper-v3-large+GPT-4o": {"source": "VoiceBench leaderboard", "all": 0.8169},
    },
}  # fmt: skip


def rows_digest(rows: Sequence[Row]) -> str:
    """Returns a digest of all that decides whether answers are right: each row's id, answer and choices.

    The order of the rows does not matter, nor whether a row comes twice.
    """
    decisive = {json.dumps([row.get(name) for name in ("id", "answer", "choices")]) for row in rows}
    return hashlib.sha256("\n".join(sorted(decisive)).encode()).hexdigest()[:16]


def is_version(benchmark: Benchmark, rows: Sequence[Row]) -> bool:
    """Returns whether these are known to be all of the benchmark's rows, and of its version.

    Raises:
        InputError: they are known to be the rows of another benchmark.
    """
    digest = rows_digest(rows)
    for name, known in DIGESTS.items():
        if digest == known and name != benchmark.name:
            raise InputError(
                f"these are the rows of {name}, not of {benchmark.name}; give --benchmark {name}"
            )
    return digest == DIGESTS.get(benchmark.name)


def read_rows(path: str | Path, benchmark: Benchmark, *, whole: bool = True) -> list[Row]:
    """Reads a benchmark's file, or a file of predictions in its form: a JSON list, or one object on each line.

    Args:
        whole: whether each row must hold its question; a prediction may have an id alone beside it.

    Raises:
        InputError: the file cannot be read, or a row is not of the benchmark's form; the row is named.
    """
    rows = read_objects(path)
    for number, row in enumerate(rows):
        if whole:
            check_row(row, benchmark, f"{path}: row {number}")
        said = row.get(benchmark.key)
        if not isinstance(said, str | None):
            raise InputError(
                f"{path}: row {number}: {benchmark.key} is {said!r}; give the answer's text"
            )
    return rows


def read_objects(path: str | Path) -> list[Row]:
    """Reads a file of questions or predictions: a JSON list, or one object on each line.

    Raises:
        InputError: it cannot be read, is empty, or holds anything else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:  # not by splitlines(): a text may hold other separators than the newline
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        problem = foreign.data(Path(path)) if Path(path).exists() else None
        problem = problem or f"not readable as JSON or JSON lines ({error})"
        raise InputError(f"{path}: {problem}") from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: must hold a list of objects, one for each question")
    return rows


def check_row(row: Row, benchmark: Benchmark, where: str) -> None:
    """Checks that a row can be asked and judged.

    Raises:
        InputError: the row lacks its question, its choices or its answer.
    """
    try:
        choices, texts = benchmark.choices(row), [benchmark.question(row)]
        if benchmark.answer:
            texts.append(benchmark.answer(row))
        good = isinstance(choices, list) and all(isinstance(t, str) for t in [*texts, *choices])
    except KeyError as error:
        raise InputError(
            f"{where} lacks {error.args[0]!r}; give a file in the form of {benchmark.name}"
        ) from error
    if not good:
        raise InputError(f"{where}: question, choices and answer must be texts")


def is_answerable(benchmark: Benchmark, row: Row) -> bool:
    """Returns whether the right answer is known and is one of the choices, letter by letter."""
    return benchmark.answer is not None and benchmark.answer(row) in benchmark.choices(row)


def as_records(rows: Sequence[Row], benchmark: Benchmark, audio_root: Path) -> list[Record]:
    """Returns a benchmark's rows as questions for a model.

    If the right answer is withheld or is none of the choices, the record names the first choice. Nothing depends on
    it: answers are judged by the benchmark's rule and its own rows.

    Raises:
        InputError: a row has no choices, a text has an unpaired surrogate, which no tokenizer takes, or a sound file
            is missing.
    """
    records = []
    for number, row in enumerate(rows):
        choices = benchmark.choices(row)
        if not choices:
            raise InputError(f"row {number} has no choices; give at least two")
        answer = benchmark.answer(row) if is_answerable(benchmark, row) else choices[0]
        for text in (benchmark.question(row), *choices):
            if any("\ud800" <= one <= "\udfff" for one in text):
                raise InputError(
                    f"row {number}: {text!r} contains an unpaired surrogate; fix the file"
                )
        path = audio_root / str(row.get(benchmark.audio))
        if not path.is_file():
            raise InputError(
                f"row {number}: no sound file {path}; name its folder with --audio-root"
            )
        task = row.get("task", row.get("modality"))
        records.append(
            Record(
                id=str(number),
                audio=(Clip(str(path)),),
                question=benchmark.question(row),
                choices=tuple(choices),
                answer_index=choices.index(answer),
                task=task if task in TASKS else benchmark.task,
                source=benchmark.name,
                licence="the benchmark's own",
            )
        )
    return records
