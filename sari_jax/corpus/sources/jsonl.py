"""Our own JSON lines, of records or captions: checked, and given the licence of --licence where one is named."""

from typing import Any

from sari_jax.corpus.sources.rows import json_rows
from sari_jax.corpus.sources.source import Context, Source


def convert(row: dict[str, Any], context: Context) -> list[dict[str, Any]]:
    if not {"question", "choices", "caption", "labels"} & row.keys():
        row = row | {"question": None}  # neither kind; told as a record that is none
    return [row]


SOURCE = Source(
    name="jsonl",
    needs="a JSONL of records or captions and the sounds that it names, from --audio-root where relative",
    licence=None,
    read=json_rows,
    convert=convert,
)
