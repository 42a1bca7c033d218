"""The JSON lines that R1-AQA and Ke-Omni-R train on: AVQA's fields with `audio_path` and `dataset_name`.

The form is read from the authors' READMEs and code. The rules for questions are AVQA's (see `avqa`): visual questions
are dropped, where R1-AQA keeps them.
"""

from typing import Any

from sari_jax.corpus.sources import avqa
from sari_jax.corpus.sources.rows import json_rows, text
from sari_jax.corpus.sources.source import Context, Source
from sari_jax.corpus.sources.tasks import task_of


def convert(row: dict[str, Any], context: Context) -> list[dict[str, Any]]:
    dataset = text(row, "dataset_name") if "dataset_name" in row else "AVQA"
    return [
        avqa.question_fields(row)
        | {"id": f"r1aqa-{text(row, 'id')}", "audio": [{"path": text(row, "audio_path")}]}
        | {"task": task_of(dataset), "source": f"r1aqa/{dataset}"}
    ]


SOURCE = Source(
    name="r1aqa",
    needs="a JSONL in R1-AQA's form and the audio files that its audio_path names, from --audio-root where relative",
    licence="as the dataset in dataset_name; not stated in R1-AQA's form",
    read=json_rows,
    convert=convert,
)
