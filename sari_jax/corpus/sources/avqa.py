"""AVQA: questions about the image and the sound of VGGSound's clips (Yang et al. 2022).

The file is train_qa.json as public training code reads it: a JSON list of objects with `id`, `video_name`,
`question_text`, `multi_choice`, `answer` (an index), `question_relation` (View, Sound or Both) and `question_type`.

Visual questions are dropped, as Ke-Omni-R does: those with relation View, and those about a colour. Relation Both is
kept, as Ke-Omni-R and R1-AQA do; R1-AQA keeps View too. "Video" becomes "audio" in the question, as in R1-AQA. The
order of the choices is the authors'. Their page states no licence for the annotations.
"""

import re
from typing import Any

from sari_jax.corpus.sources.rows import BAD_FIELD, clip, json_rows, text, texts
from sari_jax.corpus.sources.source import Context, Source
from sari_jax.data.ledger import Drop

VISUAL = "visual question"
LICENCE = "AVQA annotations: no licence stated; clips: VGGSound list CC BY 4.0, copyright of their uploaders"


def convert(row: dict[str, Any], context: Context) -> list[dict[str, Any]]:
    video = text(row, "video_name")
    # VGGSound's own tools write the start without its zeros: -HIPq7T3eFI_000011 and -HIPq7T3eFI_11.
    short = re.sub(r"_0*(\d+)$", r"_\1", video)
    return [
        question_fields(row)
        | {"id": f"avqa-{text(row, 'id')}", "audio": clip(context.root, video, short)}
        | {"task": "sound"}
    ]


def question_fields(row: dict[str, Any]) -> dict[str, Any]:
    """Returns the question, choices, answer and kind of a row in AVQA's form.

    Raises:
        Drop: the question is visual, or a field is missing or of another kind.
    """
    if row.get("question_relation") in ("View", "Visual"):
        raise Drop(VISUAL, "question_relation is View")
    index, choices = row.get("answer"), texts(row, "multi_choice")
    if type(index) is not int:
        raise Drop(BAD_FIELD, f"answer {index!r} must be an index")
    kind = {"kind": text(row, "question_type")} if row.get("question_type") else {}
    return kind | {
        "question": about_audio(text(row, "question_text")),
        "choices": choices,
        "answer_index": index,
    }


def about_audio(question: str) -> str:
    """Returns the question with "audio" in place of "video".

    Raises:
        Drop: it asks about a colour.
    """
    if re.search(r"\bcolou?rs?\b", question, re.IGNORECASE):
        raise Drop(VISUAL, f"asks for a colour: {question}")
    question = re.sub(r"\bVideo", "Audio", question)
    return re.sub(r"\bvideo", "audio", question)


SOURCE = Source(
    name="avqa",
    needs="train_qa.json of AVQA and, in --audio-root, its clips' audio as VIDEO_NAME.wav",
    licence=LICENCE,
    read=json_rows,
    convert=convert,
)
