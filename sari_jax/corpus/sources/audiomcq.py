"""AudioMCQ: 571k multiple-choice questions with two chains of thought each (He et al. 2025).

Each line is a row. These fields are certain, as public training code reads them: `audio_path`, `question`, `choices`,
`answer` (a choice's text) and `source_dataset`. These are less certain: `id`, `question_type` (sound, music, speech,
temporal), `structured_cot`, `unstructured_cot`, and `gemini_cot` of the subset with checked chains. A structured chain
becomes `chain_structured` if it has all four sections in tags. Otherwise it becomes the free chain of a row that has no
other.
"""

from typing import Any

from sari_jax.corpus.sources.choices import named
from sari_jax.corpus.sources.replies import chain, untagged
from sari_jax.corpus.sources.rows import json_rows, text, texts
from sari_jax.corpus.sources.source import Context, Source
from sari_jax.corpus.sources.tasks import task_of

LICENCE = "AudioMCQ questions: Apache-2.0; clips: the terms of the dataset named as source"


def convert(row: dict[str, Any], context: Context) -> list[dict[str, Any]]:
    dataset = text(row, "source_dataset") if row.get("source_dataset") else "unnamed"
    kind = text(row, "question_type") if row.get("question_type") else None
    path = text(row, "audio_path")
    name = text(row, "id") if row.get("id") is not None else f"{dataset}-{path}"
    return [
        named(text(row, "answer"), texts(row, "choices"))
        | _chains(row)
        | {"id": f"audiomcq-{name}", "audio": [{"path": path}], "kind": kind}
        | {"question": text(row, "question"), "task": task_of(kind, dataset)}
        | {"source": f"audiomcq/{dataset}"}
    ]


def _chains(row: dict[str, Any]) -> dict[str, Any]:
    found = {}
    if row.get("structured_cot"):
        whole = text(row, "structured_cot")
        found = chain(whole) or {"chain_free": untagged(whole)}
    for name in ("gemini_cot", "unstructured_cot"):
        if row.get(name):
            whole = text(row, name)
            found = found | {"chain_free": chain(whole).get("chain_free") or untagged(whole)}
    return found


SOURCE = Source(
    name="audiomcq",
    needs="AudioMCQ's JSONL and, in --audio-root, the audio files that its audio_path names",
    licence=LICENCE,
    read=json_rows,
    convert=convert,
)
