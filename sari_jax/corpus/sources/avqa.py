"""AVQA: questions about what is seen and heard in VGGSound's clips (Yang et al. 2022).

The form is that of its train_qa.json as public training code reads it: a JSON list of objects with `id`, `video_name`,
`question_text`, `multi_choice`, `answer` (an index), `question_relation` (View, Sound or Both) and `question_type`.

What only eyes can answer is dropped: relation View, and questions for a colour, as Ke-Omni-R does. Both is kept, as
Ke-Omni-R and R1-AQA do; R1-AQA keeps View too. Video becomes audio in the question, as in R1-AQA. The order of the
choices is the authors'. Their page states no licence for the annotations.
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
        asked(row)
        | {"id": f"avqa-{text(row, 'id')}", "audio": clip(context.root, video, short)}
        | {"task": "sound"}
    ]


def asked(row: dict[str, Any]) -> dict[str, Any]:
    """Question, choices, answer and kind of a row in AVQA's form.

    Raises:
        Drop: it is for the eyes, or a field is not as it should be.
    """
    if row.get("question_relation") in ("View", "Visual"):
        raise Drop(VISUAL, "question_relation is View")
    index, choices = row.get("answer"), texts(row, "multi_choice")
    if type(index) is not int:
        raise Drop(BAD_FIELD, f"answer {index!r} must be an index")
    kind = {"kind": text(row, "question_type")} if row.get("question_type") else {}
    return kind | {
        "question": heard(text(row, "question_text")),
        "choices": choices,
        "answer_index": index,
    }


def heard(question: str) -> str:
    """The question about the sound alone.

    Raises:
        Drop: it is for a colour.
    """
    if re.search(r"\bcolou?rs?\b", question, re.IGNORECASE):
        raise Drop(VISUAL, f"asks for a colour: {question}")
    question = re.sub(r"\bVideo", "Audio", question)
    return re.sub(r"\bvideo", "audio", question)


SOURCE = Source(
    name="avqa",
    needs="train_qa.json of AVQA and, in --audio-root, its clips' sound as VIDEO_NAME.wav",
    licence=LICENCE,
    read=json_rows,
    convert=convert,
)
