"""Each source built from its sample once, and checked for what all of them promise."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.samples import write_sample
from sari_jax.corpus.captions import Caption, read_captions
from sari_jax.corpus.sources import SOURCES
from sari_jax.corpus.sources.source import Context, build
from sari_jax.data.records import Record, read_records


@dataclasses.dataclass
class Built:
    """A corpus folder, read again.

    Attributes:
        drops: (where, reason), `where` being the number of the line, or of the place in a list.
        sounds: the folder of the sample's sounds.
        out: the corpus folder.
    """

    report: dict[str, Any]
    records: dict[str, Record]
    captions: dict[str, Caption]
    drops: list[tuple[int, str]]
    sounds: Path
    out: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A function that builds the corpus of a source from its sample; read only."""

    @functools.cache
    def make(name: str, **options) -> Built:
        folder = tmp_path_factory.mktemp(name)
        path, sounds = write_sample(name, folder / "given")
        out = folder / "out"
        report = build(SOURCES[name], out, path=path, audio_root=sounds, **options)
        assert report == json.loads((out / "report.json").read_text())
        lines = [json.loads(line) for line in (out / "dropped.jsonl").read_text().splitlines()]
        drops = [(_number(line["where"], path), line["reason"]) for line in lines]
        assert all(line["detail"] for line in lines)
        assert report["read"] == report["kept"] + len(drops)
        assert len({where for where, _ in drops}) == len(drops)
        records = read_records(out / "records.jsonl") if report["gave"]["records"] else []
        captions = read_captions(out / "captions.jsonl") if report["gave"]["captions"] else []
        assert {"records": len(records), "captions": len(captions)} == report["gave"]
        by_id = ({item.id: item for item in items} for items in (records, captions))
        return Built(report, *by_id, drops, sounds, out)

    return make


@pytest.fixture
def context(tmp_path) -> Context:
    return Context(tmp_path, "train", seed=0)


def _number(where: str, path: Path) -> int:
    assert where.startswith(str(path))
    return int(where.removeprefix(str(path)).strip(":[]"))
