"""What was given in another form is named in one line, with a command that turns it into the right one."""

import csv
import gzip
import io
import json
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sari_jax import foreign
from sari_jax.corpus.captions import read_captions
from sari_jax.corpus.sources import SOURCES
from sari_jax.corpus.sources.source import build
from sari_jax.data.records import read_records
from sari_jax.errors import InputError
from sari_jax.hf.config import read_config

ROWS = [{"id": "a", "query": "Où? (A) x (B) y"}, {"id": "b", "query": 'so "quoted", $HOME'}]
AUDIO = {"audio": {"_type": "Audio"}}


def parquet(sounds: bool = False) -> bytes:
    """As far as it is looked at: the names of columns stand in its last bytes."""
    names = b"\x18\x05audio\x15\x04\x18\x05bytes\x18\x04path" if sounds else b"\x18\x05query"
    return b"PAR1" + bytes(64) + names + b"\x10\x00\x00\x00PAR1"


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("rows.jsonl"))
    return file.getvalue()


def sound(kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(100), 16_000, format=kind)
    return file.getvalue()


# Name -> content, what it is called, and the way in.
FILES = {
    "a.parquet": (parquet(), "a Parquet file", "pandas.read_parquet("),
    "b.parquet": (parquet(sounds=True), "a Parquet file", "docs/data.md, Other forms"),
    "no-ending": (parquet(), "a Parquet file", "pandas.read_parquet("),
    "c.feather": (b"ARROW1\0\0" + bytes(9), "an Arrow file", "pandas.read_feather("),
    "d.arrow": (b"\xff\xff\xff\xff\xa0\1" + bytes(9), "an Arrow file", "Dataset.from_file("),
    "e.arrow": (
        b"\xff\xff\xff\xff" + json.dumps(AUDIO).encode(),
        "an Arrow file",
        "docs/data.md, Other forms",
    ),
    "f.jsonl.gz": (gzip.compress(b"{}"), "packed with gzip", "gunzip --keep"),
    "g.zip": (b"PK\3\4" + bytes(20), "packed with zip", "unzip"),
    "h.zst": (b"\x28\xb5\x2f\xfd" + bytes(20), "packed with zstd", "unzstd"),
    "i.tar": (tar(), "a tar archive", "tar -xf"),
    "j.wav": (sound("WAV"), "an audio file", "JSONL whose records name it"),
    "k.flac": (sound("FLAC"), "an audio file", "JSONL whose records name it"),
    "l.jsonl": (b"version https://git-lfs.github.com/spec/v1\n", "a pointer", "git lfs pull"),
    "m.json": (b"<!DOCTYPE html><html>404</html>", "a web page", "fetch the file itself"),
    "n.jsonl": ("\ufeff{}".encode("utf-16-le"), "text in UTF-16", "iconv -f UTF-16"),
    "o.safetensors": (b"\x08\0\0\0\0\0\0\0" + b'{"a":1} ', "a model's weights", "--model"),
    "p.gguf": (b"GGUF" + bytes(9), "a model in GGUF", "--model"),
    "q.pkl": (b"\x80\x04\x95" + bytes(9), "a Python pickle", "JSONL"),
}


def refused(read, *args, **options) -> str:
    with pytest.raises(InputError) as caught:
        read(*args, **options)
    told = str(caught.value)
    assert told.splitlines() == [told] and len(told) < 1000
    return told


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_text(tmp_path, name):
    content, kind, way = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    for told in (
        refused(read_records, path),
        refused(read_captions, path),
        refused(build, SOURCES["swift"], tmp_path / "out", path=path),
        refused(build, SOURCES["meld"], tmp_path / "out", path=path),
    ):
        assert told.startswith(f"{path}: ") and kind in told and way in told


def commands(told: str) -> str:
    """The command in a message, as a user copies it."""
    return re.search(r"python -c .*", told)[0].removesuffix(" (pip install pandas pyarrow)")


@pytest.mark.parametrize("folder", ["plain", 'it\'s $5 "here"'])
def test_the_command_for_text_writes_the_rows(tmp_path, folder):
    """It is run as it is told, in a shell, whatever quotes the path has."""
    folder = tmp_path / folder
    folder.mkdir()
    table = io.StringIO()
    writer = csv.DictWriter(table, ROWS[0])
    writer.writeheader()
    writer.writerows(ROWS)
    texts = {
        "list.json": json.dumps(ROWS),
        "list.jsonl": "\ufeff\n " + json.dumps(ROWS, indent=1),
        "marked.csv": "\ufeff" + table.getvalue(),
        "object.json": json.dumps({"version": 1, "data": ROWS}, indent=1),
        "one-line.json": json.dumps({"version": 1, "data": ROWS}),
        "table.csv": table.getvalue(),
        "table.tsv": table.getvalue()
        .replace(",query", "\tquery")
        .replace("a,", "a\t")
        .replace("b,", "b\t"),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
        told = refused(read_records, folder / name)
        command = commands(told)
        out = Path(shlex.split(command)[-1])
        assert out.parent == folder and out.suffix == ".jsonl" and out.name != name
        code = shlex.split(command)[2]
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert [json.loads(line) for line in done.stdout.splitlines()] == ROWS, name


def test_text_that_is_as_it_should_be(tmp_path):
    for name, text in {
        "a.jsonl": '{"id": 1}\n{"id": 2}\n',
        "b.csv": '{"id": 1}\n',
        "c.jsonl": "{\n{\n",
        "d.jsonl": '{"audio": [{"path": "a.wav"}], "question": "Which?"}\n',
        "e.jsonl": "",
        "f.jsonl": '{"id": \n{"id": 2}\n',
    }.items():
        (tmp_path / name).write_text(text)
        assert foreign.data(tmp_path / name) is None, name
        assert foreign.table(tmp_path / name) is None, name


def test_lists_are_rows_of_a_source_and_tables_are_not(tmp_path):
    (tmp_path / "a.csv").write_text("query,response\nx,y\n")
    told = refused(build, SOURCES["swift"], tmp_path / "out", path=tmp_path / "a.csv")
    assert "a CSV file" in told and "csv.DictReader(" in told
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    told = refused(build, SOURCES["swift"], tmp_path / "out", path=tmp_path / "a.json")
    assert "none of 2 rows can be used" in told


@pytest.fixture
def folder(tmp_path):
    """A function that writes files, by name and content, into a folder of its own."""

    def folder(name: str, files: dict[str, bytes | dict]) -> Path:
        for file, content in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            path.write_bytes(raw)
        return tmp_path / name

    return folder


DISK = {"state.json": {}, "dataset_info.json": {"features": {}}, "data-00000-of-00001.arrow": b"x"}
HUB = {"README.md": b"# A dataset", "data/train-00000-of-00001.parquet": parquet()}
ADAPTER = {
    "adapter_config.json": {"peft_type": "LORA", "base_model_name_or_path": "Qwen/Qwen2-Audio-7B"},
    "adapter_model.safetensors": b"",
}
MODEL = {"config.json": {"model_type": "qwen2_audio"}, "model.safetensors": b""}
RUN = {"config.json": {"stage": "sft"}, "checkpoints/8/x": b"", "metrics.jsonl": b""}
FOLDERS = {
    "disk": (DISK, "save_to_disk", "datasets.load_from_disk('{}').to_json("),
    "splits": (
        {"dataset_dict.json": {"splits": ["dev", "test"]}}
        | {f"dev/{k}": v for k, v in DISK.items()},
        "save_to_disk",
        "datasets.load_from_disk('{}/dev').to_json(",
    ),
    "sounds": (DISK | {"dataset_info.json": {"features": AUDIO}}, "save_to_disk", "Other forms"),
    "hub": (HUB, "as the hub keeps it", "datasets.load_dataset('{}', split='train').to_json("),
    "flat": ({"test.parquet": parquet()}, "as the hub keeps it", "split='test'"),
    "heard": ({"data/train-0.parquet": parquet(sounds=True)}, "as the hub keeps it", "Other forms"),
    "adapter": (ADAPTER, "a PEFT adapter", "name a file of rows"),
    "model": (MODEL, "a model's folder", "--model"),
    "corpus": ({"records.jsonl": b"", "report.json": b""}, "a folder", "{}/records.jsonl"),
    "captions": ({"captions.jsonl": b""}, "a folder", "{}/captions.jsonl"),
    "files": (
        {name: b"" for name in ("a.jsonl", "b.jsonl", "c.json", "d.csv")},
        "a folder",
        "{0}/a.jsonl, {0}/b.jsonl, {0}/c.json",
    ),
    "empty": ({"x": b""}, "a folder", "name a file in it"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_in_place_of_a_file(folder, tmp_path, name):
    files, kind, way = FOLDERS[name]
    path = folder(name, files)
    for told in (
        refused(read_records, path),
        refused(build, SOURCES["swift"], tmp_path / "out", path=path),
    ):
        assert told.startswith(f"{path}: ") and kind in told and way.format(path) in told


def test_a_folder_by_a_dot(folder, monkeypatch):
    monkeypatch.chdir(folder("here", DISK))
    assert "load_from_disk('.').to_json('here.jsonl')" in refused(read_records, ".")


MODELS = {
    "adapter": (ADAPTER, "a PEFT adapter without its model, Qwen/Qwen2-Audio-7B"),
    "run": (RUN, "the --workdir of a run; write its model: sari export --workdir {} --out DIR"),
    "cache": ({"snapshots/1f/config.json": {}, "refs/main": b""}, "name {}/snapshots/1f"),
    "outputs": ({"checkpoint-9/config.json": {}}, "model directories; name one: {}/checkpoint-9"),
    "disk": (DISK, "a dataset that save_to_disk wrote, and no model"),
    "hub": (HUB, "a dataset as the hub keeps it, in Parquet, and no model"),
    "nothing": ({"x": b""}, "no config.json"),
}


@pytest.mark.parametrize("name", MODELS)
def test_folders_in_place_of_a_model(folder, name):
    files, told = MODELS[name]
    path = folder(name, files)
    assert told.format(path) in refused(read_config, path)


def test_what_merges_an_adapter(folder):
    """For the class that it names, or that its model's name tells; also where a path must be quoted."""
    cases = {
        "Qwen/Qwen2-Audio-7B-Instruct": ("t.Qwen2AudioForConditionalGeneration", None),
        "Qwen/Qwen2.5-Omni-3B": ("t.Qwen2_5OmniThinkerForConditionalGeneration", None),
        "it's/mine": ("t.Own", {"base_model_class": "Own"}),
    }
    for number, (base, (opened, named)) in enumerate(cases.items()):
        settings = {"base_model_name_or_path": base, "auto_mapping": named}
        path = folder(f"adapter {number}", {"adapter_config.json": settings})
        words = shlex.split(commands(refused(read_config, path)))
        assert words[:2] == ["python", "-c"] and len(words) == 3
        compile(words[2], "told", "exec")
        assert f"{opened}.from_pretrained(base)" in words[2] and repr(str(path)) in words[2]


def test_a_model_of_the_hub_or_a_file_of_one(folder, monkeypatch):
    path = folder("model", MODEL)
    monkeypatch.chdir(path)
    told = refused(read_config, "Qwen/Qwen2-Audio-7B")
    assert "hf download Qwen/Qwen2-Audio-7B --local-dir Qwen2-Audio-7B" in told
    assert f"name the folder that it lies in: {path}" in refused(
        read_config, path / "model.safetensors"
    )
    assert "no config.json" in refused(read_config, path / "absent")


@pytest.mark.parametrize("splits", ["null", "5", "[]", "[1]", '{"a": 1}'])
def test_a_datasets_index_of_another_form(splits, tmp_path):
    (tmp_path / "dataset_dict.json").write_text(f'{{"splits": {splits}}}')
    assert "a folder; name a file in it" in foreign.data(tmp_path)
    assert foreign.model(tmp_path) is None


def test_an_adapters_mapping_of_another_form(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"auto_mapping": [1]}')
    assert "a PEFT adapter without its model" in foreign.model(tmp_path)


def test_a_name_that_no_file_can_have():
    for told in (foreign.data, foreign.table, foreign.model):
        assert told(Path("n" * 300)) is None
