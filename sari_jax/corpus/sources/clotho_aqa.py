"""Clotho-AQA: crowdsourced questions about Freesound clips, each answered by three people (Lipping et al. 2022).

The files are those of its Zenodo record: clotho_aqa_{train,val,test}.csv with `file_name`, `QuestionText`, `answer` and
`confidence` (yes, maybe or no; some copies lack this column). There is a row for each person's answer.

A question gives one record if more than half of its confident answers agree. The first of the agreeing rows gives the
record; the others are dropped as repeated or outvoted answers, so that every row is accounted for. The only wrong
choice for "yes" is "no", and the other way round. Other answers get three wrong choices that are right elsewhere in the
file and that nobody gave here, numbers for a number. A choice that is more often right elsewhere is more often drawn.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sari_jax.corpus.sources.choices import mixed
from sari_jax.corpus.sources.rows import clip, csv_rows, text
from sari_jax.corpus.sources.source import Context, Source
from sari_jax.data.ledger import Drop

UNSURE = "low confidence"
DISAGREE = "annotators disagree"
OUTVOTED = "outvoted answer"
SAME = "answer given before"
YES_NO = ("yes", "no")
NUMBERS = frozenset("zero one two three four five six seven eight nine ten eleven twelve".split())


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question with the majority's answer.

    Attributes:
        others: the answers that all annotators gave to the question.
        pool: the answers of all questions, with the number of questions that each answers.
    """

    file: str
    question: str
    answer: str
    others: frozenset[str]
    pool: Counter[str]


def read(path: Path) -> Iterator[tuple[str, Asked | Drop]]:
    rows = list(csv_rows(path, ("file_name", "QuestionText", "answer")))
    checked = [(where, row if isinstance(row, Drop) else _checked(row)) for where, row in rows]
    asked = defaultdict(list)
    for _, row in checked:
        if not isinstance(row, Drop):
            asked[_key(row)].append(row)
    agreed = {key: _agreed(answers) for key, answers in asked.items()}
    pool = Counter(answer for answer in agreed.values() if answer)
    given = set()
    for where, row in checked:
        if isinstance(row, Drop):
            yield where, row
            continue
        key, answer = _key(row), row["answer"]
        if row["confidence"] == "no":
            yield where, Drop(UNSURE, f"{answer!r} was given with confidence no")
        elif agreed[key] is None:
            yield where, Drop(DISAGREE, f"no majority for {answer!r}: {row['QuestionText']}")
        elif answer != agreed[key]:
            yield where, Drop(OUTVOTED, f"{answer!r}, where most said {agreed[key]!r}")
        elif key in given:
            yield where, Drop(SAME, f"{answer!r} is the answer of a row before")
        else:
            given.add(key)
            others = frozenset(each["answer"] for each in asked[key])
            yield where, Asked(row["file_name"], row["QuestionText"], answer, others, pool)


def _checked(row: dict[str, str]) -> dict[str, str] | Drop:
    try:
        values = {name: text(row, name) for name in ("file_name", "QuestionText", "answer")}
    except Drop as drop:
        return drop
    confidence = row.get("confidence", "").lower()
    return values | {"answer": values["answer"].lower().rstrip("."), "confidence": confidence}


def _key(row: dict[str, str]) -> tuple[str, str]:
    return row["file_name"], row["QuestionText"].lower()


def _agreed(rows: list[dict[str, str]]) -> str | None:
    """Returns the answer of more than half of the confident rows; None without such a majority."""
    votes = Counter(row["answer"] for row in rows if row["confidence"] != "no")
    answer, count = votes.most_common(1)[0] if votes else (None, 0)
    return answer if count * 2 > votes.total() else None


def convert(row: Asked, context: Context) -> list[dict[str, Any]]:
    name = f"clotho-aqa-{row.file}-{row.question}"
    if row.answer in YES_NO:
        answers = {"choices": list(YES_NO), "answer_index": YES_NO.index(row.answer)}
        kind = "yes or no"
    else:
        answers = mixed(row.answer, _wrong(row), context.seed, name)
        kind = "one word"
    return [
        answers
        | {"id": name, "audio": clip(context.root, row.file), "kind": kind, "task": "sound"}
        | {"question": row.question}
    ]


def _wrong(row: Asked) -> dict[str, int]:
    """Returns answers to other questions that nobody gave here, in any form: not "dogs" where somebody said "dog"."""
    number, known = _is_number(row.answer), row.others.union(YES_NO)
    return {
        word: count
        for word, count in row.pool.items()
        if word not in known
        and _is_number(word) == number
        and (number or not any(_alike(word, other) for other in row.others))
    }


def _alike(one: str, other: str) -> bool:
    return one.startswith(other[:4]) or other.startswith(one[:4])


def _is_number(word: str) -> bool:
    return word in NUMBERS or word.isdigit()


SOURCE = Source(
    name="clotho-aqa",
    needs="clotho_aqa_train.csv (or val, test) of Clotho-AQA and its audio_files as --audio-root",
    licence="Clotho-AQA answers: its LICENSE.txt, reported to be MIT; clips: Freesound, each its own"
    " (clotho_aqa_metadata.csv)",
    read=read,
    convert=convert,
)
