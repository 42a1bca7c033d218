"""A corpus folder: the items that were kept and dropped, and a report that accounts for each input.

records.jsonl   questions
captions.jsonl  clips without a question
dropped.jsonl   {"where", "reason", "detail"} of every dropped input
report.json     {"read", "kept", "dropped": {reason: count}, ...}
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sari_jax.atomic import new_directory
from sari_jax.corpus.captions import Caption, write_captions
from sari_jax.data.jsonl import write_items
from sari_jax.data.ledger import Ledger
from sari_jax.data.records import Record, write_records


def write_corpus(
    out: Path | str,
    ledger: Ledger,
    records: Sequence[Record] = (),
    captions: Sequence[Caption] = (),
    **more: Any,
) -> dict[str, Any]:
    """Writes a corpus folder, complete or not at all; returns its report, with `more` added.

    Raises:
        InputError: `out` is not empty or cannot be written.
    """
    with new_directory(Path(out)) as aside:
        if records:
            write_records(aside / "records.jsonl", records)
        if captions:
            write_captions(aside / "captions.jsonl", captions)
        return write_report(aside, ledger, **more)


def write_report(folder: Path, ledger: Ledger, **more: Any) -> dict[str, Any]:
    """Writes dropped.jsonl and report.json into a folder that is being made; returns the report, with `more` added."""
    report = {**ledger.report(), **more}
    write_items(folder / "dropped.jsonl", ledger.dropped)
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    (folder / "report.json").write_text(text, encoding="utf-8")
    return report
