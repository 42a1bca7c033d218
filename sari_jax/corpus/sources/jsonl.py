"""JSON lines of this package's own records or captions; they are checked, and --licence replaces their licence."""

from typing import Any

from sari_jax.corpus.sources.rows import json_rows
from sari_jax.corpus.sources.source import Context, Source


def convert(row: dict[str, Any], context: Context) -> list[dict[str, Any]]:
    if not {"question", "choices", "caption", "labels"} & row.keys():
        row = row | {"question": None}  # of neither kind: refused as a record without a question
    return [row]


SOURCE = Source(
    name="jsonl",
    needs="a JSONL of records or captions and the audio files that it names, from --audio-root where relative",
    licence=None,
    read=json_rows,
    convert=convert,
)
