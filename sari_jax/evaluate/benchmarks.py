"""The field's benchmarks: the form of their files, and whether an answer is right by their own rules.

Each keeps a prediction in the row of its question, under a key of its own. Benchmarks of one name that differ are
named apart: MMAU's test-mini was published twice, and papers before May 2025 report the first.
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
SPOKEN = "Answer the question that is asked in the recording."  # ours; VoiceBench adds no words


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark's form and rule.

    Attributes:
        version: which of those with its name.
        rule: where the rule comes from.
        key: under which a prediction stands.
        audio: the field that names a row's sound.
        groups: fields by which scores are told apart, one or "two / of them"; a value may be a list of texts.
        scored: fields that hold a row's choices and its answer.
        choices: a row's.
        answer: a row's right text; None where answers are withheld.
        right: (row, prediction) -> whether it is right; None where it cannot be read, and so is wrong.
        said: (row, the extracted answer) -> what is written under `key`.
        question: what a model is asked, beside the sound.
        name_of_row: the field that tells rows apart.
        task: of rows that name none.
        absent: what the benchmark's script takes a row without the key to have said; None where it skips such a row.
        unread: (row, prediction) -> what the script counts for one that it cannot read: 0 is wrong, between 0 and 1 is
            the chance of its guess, None is a row that it leaves out.
        guesses: whether the script takes one of the choices at random for what it cannot read.
        lines: whether its files are JSON lines rather than a list.
        size: how many rows it has, where the content of its file is not known here.
    """

    name: str
    version: str
    rule: str
    key: str
    audio: str
    groups: tuple[str, ...]
    scored: tuple[str, ...]
    choices: Callable[[Row], Any]
    answer: Callable[[Row], Any] | None
    right: Callable[[Row, str], bool | None]
    said: Callable[[Row, str], str] = lambda row, answer: answer
    question: Callable[[Row], Any] = lambda row: row["question"]
    name_of_row: str = "id"
    task: str = "sound"
    absent: str | None = None
    unread: Callable[[Row, str], float | None] = lambda row, prediction: 0.0
    guesses: bool = False
    lines: bool = False
    size: int | None = None

    @property
    def group_fields(self) -> list[str]:
        return list(dict.fromkeys(field for group in self.groups for field in group.split(" / ")))

    def counted(self, row: Row, verdict: bool | None) -> float | None:
        """What a row adds to the right answers of the benchmark's script; None where the script leaves it out.

        Args:
            verdict: of `right`; None where there is no prediction.
        """
        said = row.get(self.key, self.absent)
        if said is None:
            return None
        return self.unread(row, said) if verdict is None else float(verdict)


def _matched(row: Row, prediction: str) -> bool:
    return matches(row["answer"], prediction, row["choices"])


def _bare(prediction: str) -> str:
    return prediction.strip().replace("\n", "")


def _lettered(row: Row, prediction: str) -> bool | None:
    """Whether a response names the right choice, by its first character or else by the last but one, as MMSU's script
    reads it; None where neither is one of A to D.
    """
    said = _bare(prediction)
    for one in (said[:1], said[-2:-1]):
        if one and one in LETTERS:
            return row[f"choice_{one.lower()}"] == row["answer_gt"]
    return None


def _failed(row: Row, prediction: str) -> float | None:
    """MMSU's script counts no answer at all as wrong ("None" is how it writes a failed one), and leaves out an answer
    in which it finds no letter.
    """
    return 0.0 if _bare(prediction) in ("", "None") else None


def _letter(row: Row, answer: str) -> str:
    place = choice_index(answer, _four(row))
    return "" if place is None else LETTERS[place]


def _four(row: Row) -> list[Any]:
    return [row[f"choice_{letter.lower()}"] for letter in LETTERS]


def _mmau(name: str, version: str, answer: Callable[[Row], Any] | None) -> Benchmark:
    return Benchmark(
        name,
        version,
        "string_match of MMAU's evaluation.py",
        "model_output",
        "audio_id",
        ("task", "category", "sub-category", "difficulty"),
        ("choices", "answer"),
        lambda row: row["choices"],
        answer,
        _matched,
    )


def _answer(row: Row) -> Any:
    return row["answer"]


def _heard(row: Row, prediction: str) -> bool | None:
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
            "mmar",
            "1,000 rows",
            "string_match of MMAR's evaluation.py",
            "answer_prediction",
            "audio_path",
            ("modality", "category", "sub-category"),
            ("choices", "answer"),
            lambda row: row["choices"],
            _answer,
            _matched,
        ),
        Benchmark(
            "mmsu",
            "MMSU_Bench; not VoiceBench's mmsu",
            "calculate_accuracy_per_task_and_category of MMSU's script: the letter at either end of a response",
            "response",
            "audio_path",
            ("task_name", "category", "sub-category", "category / sub-category"),
            (*(f"choice_{letter.lower()}" for letter in LETTERS), "answer_gt"),
            _four,
            lambda row: row["answer_gt"],
            _lettered,
            _letter,
            task="speech",
            absent="",
            unread=_failed,
            lines=True,
        ),
        Benchmark(
            "voicebench-mmsu",
            "VoiceBench's mmsu, 3,074 rows; not MMSU_Bench",
            "the phrases of MCQEvaluator of VoiceBench's mcq.py; unreadable is wrong",
            "response",
            "audio_path",
            ("category",),
            ("reference",),
            lambda row: list(LETTERS),  # what they stand for is told by the voice alone
            lambda row: row["reference"],
            _heard,
            question=lambda row: SPOKEN,
            name_of_row="question_id",
            task="speech",
            unread=_chance,
            guesses=True,
            lines=True,
            size=3074,
        ),
    )
}

# MMAU's two test-minis by the content of their 1,000 rows: `rows_digest` of the files as they were published.
DIGESTS = {
    "mmau-original": "84a841c156868b3b",
    "mmau-v05.15.25": "cc0683d50b920776",
}

# Fractions and where they were published; VoiceBench's with what its script guessed at random.
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
    """A digest of what decides whether answers are right: each row's id, answer and choices.

    The order of rows does not matter, nor whether one stands twice.
    """
    decisive = {json.dumps([row.get(name) for name in ("id", "answer", "choices")]) for row in rows}
    return hashlib.sha256("\n".join(sorted(decisive)).encode()).hexdigest()[:16]


def is_version(benchmark: Benchmark, rows: Sequence[Row]) -> bool:
    """Whether these are known to be all of the benchmark's rows, and of its version.

    Raises:
        InputError: they are known to be another's.
    """
    digest = rows_digest(rows)
    for name, known in DIGESTS.items():
        if digest == known and name != benchmark.name:
            raise InputError(
                f"these are the rows of {name}, not of {benchmark.name}; give --benchmark {name}"
            )
    return digest == DIGESTS.get(benchmark.name)


def read_rows(path: str | Path, benchmark: Benchmark, *, whole: bool = True) -> list[Row]:
    """A benchmark's file, or one of predictions in its form: a JSON list, or one object on each line.

    Args:
        whole: whether each row must hold its question; predictions may stand beside an id alone.

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
    """A file of questions or predictions: a JSON list, or one object on each line.

    Raises:
        InputError: it cannot be read, or holds anything else, or nothing.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:  # not splitlines(): a text may hold other separators than the newline
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        told = foreign.data(Path(path)) if Path(path).exists() else None
        told = told or f"not readable as JSON or JSON lines ({error})"
        raise InputError(f"{path}: {told}") from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: must hold a list of objects, one for each question")
    return rows


def check_row(row: Row, benchmark: Benchmark, where: str) -> None:
    """Whether a row can be asked and judged.

    Raises:
        InputError: it lacks its question, its choices or its answer.
    """
    try:
        choices, texts = benchmark.choices(row), [benchmark.question(row)]
        if benchmark.answer:
            texts.append(benchmark.answer(row))
        good = isinstance(choices, list) and all(isinstance(t, str) for t in [*texts, *choices])
    except KeyError as error:
        raise InputError(
            f"{where} lacks {error.args[0]!r}; is it {benchmark.name}'s form?"
        ) from error
    if not good:
        raise InputError(f"{where}: question, choices and answer must be texts")


def is_answerable(benchmark: Benchmark, row: Row) -> bool:
    """Whether the right answer is known and is one of the choices, letter by letter."""
    return benchmark.answer is not None and benchmark.answer(row) in benchmark.choices(row)


def as_records(rows: Sequence[Row], benchmark: Benchmark, audio_root: Path) -> list[Record]:
    """Questions for a model; where answers are withheld or none of the choices, the first choice stands for them.

    It means nothing there: answers are judged by the benchmark's rule and its own rows.

    Raises:
        InputError: a row without choices; a text with half of a character, which no tokenizer takes; a sound file that
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
                raise InputError(f"row {number}: {text!r} holds half of a character; mend it")
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
