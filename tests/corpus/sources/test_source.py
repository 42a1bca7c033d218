"""What any source promises: every row is kept, or dropped for one reason; the same corpus for the same seed."""

import csv
import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from experiments.samples import BESIDE, FILES, SAMPLES, write_sample, write_samples
from sari_jax.corpus.sources import SOURCES, jsonl
from sari_jax.corpus.sources.rows import json_rows
from sari_jax.corpus.sources.source import Source, build
from sari_jax.data.ledger import Drop
from sari_jax.errors import InputError

RECORD = {
    "id": "a",
    "audio": [{"path": "a.wav"}],
    "question": "Which?",
    "choices": ["x", "y"],
    "answer_index": 0,
    "task": "sound",
    "source": "made up",
    "licence": "CC0-1.0",
}


@pytest.fixture
def write(tmp_path):
    """A function that writes lines beside a sound; returns their file."""
    (tmp_path / "a.wav").write_bytes(b"only its presence counts here")

    def write(*lines: dict | str):
        path = tmp_path / "rows.jsonl"
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("\n".join(texts) + "\n")
        return path

    return write


def rows_in(name: str) -> int:
    """Counted without our readers: no sample has a row on two lines."""
    text = (FILES / SAMPLES[name][0]).read_text(encoding="utf-8-sig")
    if text.startswith("["):
        return len(json.loads(text))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return len(lines) - (name in ("meld", "clotho-aqa"))  # which name their columns


def test_every_source_has_a_sample():
    assert set(SAMPLES) == set(SOURCES)
    named = {file for file, _ in SAMPLES.values()} | {f for more in BESIDE.values() for f in more}
    assert {path.name for path in FILES.iterdir()} == named


@pytest.mark.parametrize("name", SOURCES)
def test_every_row_is_accounted_for(built, name):
    found = built(name)
    assert found.report["read"] == rows_in(name)
    assert found.report["kept"] and found.drops
    assert found.report["read"] == found.report["kept"] + sum(found.report["dropped"].values())
    assert "sound file missing" in found.report["dropped"]
    items = [*found.records.values(), *found.captions.values()]
    assert len(items) >= found.report["kept"]
    assert sum(found.report["tasks"].values()) == len(items)
    for item in items:
        assert item.licence
        assert name == "jsonl" or item.id.startswith(f"{name}-")
        assert all(clip.path.startswith(str(found.sounds)) for clip in item.audio)


@pytest.mark.parametrize("name", SOURCES)
def test_the_same_corpus_for_the_same_seed(built, tmp_path, name):
    found = built(name)
    path = Path(found.report["input"])
    build(SOURCES[name], tmp_path / "again", path=path, audio_root=found.sounds)
    assert len(list(found.out.iterdir())) == len(list((tmp_path / "again").iterdir())) > 2
    for file in found.out.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_a_seed_changes_what_is_chosen_by_rule(tmp_path):
    path, sounds = write_sample("meld", tmp_path / "given")
    texts = set()
    for seed in range(3):
        out = tmp_path / str(seed)
        build(SOURCES["meld"], out, path=path, audio_root=sounds, seed=seed)
        texts.add((out / "records.jsonl").read_text())
    assert len(texts) == 3


ODD = [None, True, 0, -1, 7.5, float("nan"), float("inf"), "", " ", "a\0b", "A", "\udcff"]
ODD += [[], {}, [None], ["x", 1], [["x"]], [[], []], [[1], [float("inf")]], {"audio": ["x"]}]


@pytest.mark.parametrize("name", [n for n in SOURCES if SAMPLES[n][0].endswith(("json", "jsonl"))])
def test_no_field_of_any_type_stops_a_build(tmp_path, name):
    path, sounds = write_sample(name, tmp_path / "given")
    rows = [row for _, row in json_rows(path) if not isinstance(row, Drop)]
    changed = [row | {field: odd} for row in rows[:3] for field in row for odd in ODD]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows + changed))
    report = build(SOURCES[name], tmp_path / "out", path=path, audio_root=sounds)
    assert report["read"] == len(rows + changed)
    assert report["read"] == report["kept"] + sum(report["dropped"].values())


@pytest.mark.parametrize("name", [n for n in SOURCES if SAMPLES[n][0].endswith("csv")])
def test_no_text_of_a_field_stops_a_build(tmp_path, name):
    path, sounds = write_sample(name, tmp_path / "given")
    text = path.read_text(encoding="utf-8-sig")
    rows = list(csv.reader(text.splitlines(), skipinitialspace=True))
    texts = [odd for odd in ODD if isinstance(odd, str)] + ["#", '"', "nan", "-1", "ü" * 300]
    changed = [
        row[:i] + [odd] + row[i + 1 :]
        for row in rows[-3:]
        for i in range(len(row))
        for odd in texts
    ]
    with path.open("a", newline="", errors="surrogateescape") as file:
        csv.writer(file).writerows(changed)
    report = build(SOURCES[name], tmp_path / "out", path=path, audio_root=sounds)
    assert report["read"] == report["kept"] + sum(report["dropped"].values())
    assert report["read"] > len(changed)


def test_samples_sound_different(tmp_path):
    written = write_samples(tmp_path)
    clips = [path for _, root in written.values() for path in root.rglob("*") if path.is_file()]
    sounds = [path.read_bytes() for path in clips if path.stat().st_size]
    assert len({hashlib.sha256(sound).digest() for sound in sounds}) == len(sounds) > 20


def test_a_limit_is_of_rows_read(built):
    found = built("avqa", limit=4)
    assert found.report["read"] == 4 and found.report["kept"] == 2


def test_a_licence_in_place_of_the_sources(built):
    found = built("meld", licence="of my own")
    items = [*found.records.values(), *found.captions.values()]
    assert {item.licence for item in items} == {"of my own"}


def test_relative_paths_start_at_the_files_folder_and_become_absolute(write, tmp_path, monkeypatch):
    write(RECORD)
    monkeypatch.chdir(tmp_path)
    build(jsonl.SOURCE, tmp_path / "out", path=Path("rows.jsonl"))
    (line,) = (tmp_path / "out/records.jsonl").read_text().splitlines()
    assert json.loads(line)["audio"] == [{"path": str(tmp_path / "a.wav")}]


def test_ids_that_come_again_are_numbered(write, tmp_path):
    path = write(*[RECORD] * 3, RECORD | {"id": "a-2"}, RECORD)
    build(jsonl.SOURCE, tmp_path / "out", path=path)
    lines = (tmp_path / "out/records.jsonl").read_text().splitlines()
    ids = [json.loads(line)["id"] for line in lines]
    assert ids[:3] == ["a", "a-2", "a-3"] and len(set(ids)) == 5


def test_a_row_is_dropped_whole_when_one_of_its_records_is_bad(write, tmp_path):
    def convert(row, context):
        if row["id"] == "none":
            raise Drop("of no use", "as it says")
        return [row, row | {"answer_index": row["second"]}]

    source = dataclasses.replace(jsonl.SOURCE, convert=convert)
    path = write(RECORD | {"second": 1}, RECORD | {"second": 7}, RECORD | {"id": "none"})
    report = build(source, tmp_path / "out", path=path)
    assert (report["read"], report["kept"], report["gave"]["records"]) == (3, 1, 2)
    assert report["dropped"] == {"bad field": 1, "of no use": 1}


def refused(*args, **options) -> str:
    with pytest.raises(InputError) as caught:
        build(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_the_user_must_have_is_told(tmp_path, write):
    out, source = tmp_path / "out", SOURCES["avqa"]
    assert source.needs in refused(source, out, path=tmp_path / "absent.json")
    path = write("{")
    told = refused(source, out, path=path)
    assert f"{path}: none of 1 rows can be used; 1 for: bad line, the first {path}:1: not" in told
    assert source.needs in told
    assert "holds no row" in refused(source, out, path=write(""))
    assert "no such folder of audio" in refused(
        source, out, path=path, audio_root=tmp_path / "absent"
    )
    assert "--licence is empty" in refused(source, out, path=path, licence=" ")
    assert not out.exists()


def test_a_place_that_is_taken(write, tmp_path):
    """Told before anything is read."""
    assert "not empty" in refused(jsonl.SOURCE, tmp_path, path=write("{"))


@pytest.mark.parametrize("name", SOURCES)
def test_the_page_tells_of_every_source_and_reason(built, name):
    page = (Path(__file__).parents[3] / "docs/data.md").read_text()
    assert f"\n| `{name}` |" in page
    for reason in built(name).report["dropped"]:
        row = next(line for line in page.splitlines() if line.startswith("| ") and reason in line)
        assert row.endswith("| all |") or f"`{name}`" in row


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_source_says_what_it_needs(source: Source):
    assert source.needs and "\n" not in source.needs
    assert source.licence or source.name == "jsonl"
