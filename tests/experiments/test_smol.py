"""The answers of `make smol`'s models, side by side."""

import json

from experiments.smol import samples
from sari_jax.data.records import write_records


def test_samples_are_shown_as_they_are(tmp_path, make_record):
    (tmp_path / "dog.wav").write_bytes(b"never read")
    records = [make_record(id=f"r{n}", question=f"Question {n}?") for n in range(9)]
    write_records(tmp_path / "test.jsonl", records)
    for stage in ("base", "sft"):
        said = [{"completion": f"<b>{stage} {n}</b>\n\n# not a heading"} for n in range(9)]
        (tmp_path / f"eval-{stage}").mkdir()
        (tmp_path / f"eval-{stage}/predictions.json").write_text(json.dumps(said))
    lines = samples(tmp_path, ("base", "sft")).splitlines()
    assert lines[:4] == [
        "Question 0? (cat, dog, hen; right: dog)",
        "",
        "    base: <b>base 0</b> # not a heading",  # indented: code, in which nothing is markup
        "    sft: <b>sft 0</b> # not a heading",
    ]
    assert sum(line.startswith("Question") for line in lines) == 6
