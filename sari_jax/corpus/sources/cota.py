"""CoTA, the structured chains of Audio-Reasoner (Xie et al. 2025).

The authors publish Parquet. Its rows must be written to JSONL with `audio_path` (or `audios`), a question that contains
its choices as `instruction`, `query` or `question`, and the reply as `output`, `response` or `answer`, or as messages.

From published rows it is certain that a reply has <PLANNING>, <CAPTION>, <REASONING> and <SUMMARY>, within <THINK> or
bare, and then <RESPONSE>, whose end names the answer by letter or text, and that choices are written (a) ... (b) ....
The names of the columns are less certain. Questions without choices are dropped. We know of no licence on the authors'
page.
"""

from typing import Any

from sari_jax.corpus.sources.replies import answered, question_and_choices
from sari_jax.corpus.sources.rows import json_rows, text
from sari_jax.corpus.sources.source import Context, Source
from sari_jax.corpus.sources.swift import turn
from sari_jax.corpus.sources.tasks import task_of


def convert(row: dict[str, Any], context: Context) -> list[dict[str, Any]]:
    prompt, reply, sounds = turn(row)
    question, choices = question_and_choices(prompt)
    dataset = text(row, "dataset") if row.get("dataset") else None
    task = text(row, "task") if row.get("task") else None
    name = text(row, "id") if row.get("id") is not None else sounds[0]
    return [
        answered(reply, choices)
        | {"id": f"cota-{name}", "audio": [{"path": path} for path in sounds]}
        | {"question": question, "task": task_of(task, dataset, sounds[0])}
        | {"source": f"cota/{dataset}" if dataset else "cota"}
    ]


SOURCE = Source(
    name="cota",
    needs="rows of Audio-Reasoner's CoTA as JSONL and the audio files that they name, from --audio-root where relative",
    licence="CoTA chains: no licence known to us; clips: the terms of the dataset that they come from",
    read=json_rows,
    convert=convert,
)
