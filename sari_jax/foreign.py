"""Recognition of other programs' files and folders, given in place of records, rows or a model.

Each function returns a description with the command that converts the file, for one line of an error message; or None
if it does not recognise the file.
"""

import json
import os
import shlex
from pathlib import Path
from typing import Any

WEIGHTS = ("*.safetensors", "*.bin", "*.pt")
AUDIO_INSIDE = "it contains its audio: docs/data.md, Other forms, has code that writes the audio to files, with a JSONL"
# The largest JSON file that is read to recognise it, in bytes.
WHOLE = 1 << 30
_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip --keep"),
    b"BZh": ("bzip2", "bunzip2 --keep"),
    b"\xfd7zXZ": ("xz", "unxz --keep"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"PK\x03\x04": ("zip", "unzip"),
}
_KINDS = {
    b"RIFF": "an audio file; name a JSONL whose records name it",
    b"fLaC": "an audio file; name a JSONL whose records name it",
    b"OggS": "an audio file; name a JSONL whose records name it",
    b"ID3": "an audio file; name a JSONL whose records name it",
    b"version https://git-lfs": "only a pointer to a file in Git LFS; fetch the file: git lfs pull",
    b"<!DOCTYPE": "a web page, such as a server's error; fetch the file itself",
    b"<html": "a web page, such as a server's error; fetch the file itself",
    b"GGUF": "a model in GGUF; name a Hugging Face model directory, as --model",
    b"SQLite format 3": "an SQLite database; write its rows to JSONL",
    b"\x89HDF": "an HDF5 file; write its rows to JSONL",
    b"\x93NUMPY": "a NumPy array; write its rows to JSONL",
    b"%PDF": "a PDF",
}


def data(path: Path) -> str | None:
    """Describes a folder or a binary file that was given in place of rows of JSON or CSV."""
    if os.path.isdir(path):
        return _folder(path)
    head = _head(path, 512)
    for magic, (kind, command) in _PACKED.items():
        if head.startswith(magic):
            return f"packed with {kind}; unpack it: {command} {shlex.quote(str(path))}"
    for magic, description in _KINDS.items():
        if head.startswith(magic):
            return description
    out = _beside(path)
    if head.startswith(b"PAR1"):
        if _contains_audio(path):
            return f"a Parquet file; {AUDIO_INSIDE}"
        return _way("a Parquet file", "pandas", f"pandas.read_parquet({str(path)!r})", out)
    if head.startswith(b"ARROW1"):
        return _way("an Arrow file", "pandas", f"pandas.read_feather({str(path)!r})", out)
    if head.startswith(b"\xff\xff\xff\xff"):
        if b'"_type": "Audio"' in _head(path, 1 << 16):
            return f"an Arrow file; {AUDIO_INSIDE}"
        return _way("an Arrow file", "datasets", f"datasets.Dataset.from_file({str(path)!r})", out)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        command = f"iconv -f UTF-16 -t UTF-8 {shlex.quote(str(path))} > FILE"
        return f"text in UTF-16; write it in UTF-8: {command}"
    if head[257:262] == b"ustar":
        return f"a tar archive; unpack it, and name the file of rows in it: tar -xf {shlex.quote(str(path))}"
    if head[8:10] == b'{"' and path.suffix == ".safetensors":
        return "a model's weights; name the folder that they lie in, as --model"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "a Python pickle, which may run any code when it is read; write its rows to JSONL"
    return None


def table(path: Path, *, lists: bool = False) -> str | None:
    """Describes a text file that does not have one JSON object on each line.

    Args:
        lists: whether a JSON list is accepted too.
    """
    start = _head(path, 4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    out = _beside(path)
    if start.startswith(b"["):
        return None if lists else _json("a JSON list", path, "", out)
    if start.startswith(b"{"):
        return _one_object(path, out)
    dialects = {".csv": "'excel'", ".tsv": "'excel-tab'"}
    if start and path.suffix.lower() in dialects:
        rows = f"csv.DictReader(open({str(path)!r}, encoding='utf-8-sig'), dialect={dialects[path.suffix.lower()]})"
        code = f"import csv, json; [print(json.dumps(row)) for row in {rows}]"
        kind = path.suffix[1:].upper()
        return f"a {kind} file; write its rows to JSONL: {_python(code)} > {shlex.quote(str(out))}"
    return None


def model(path: Path) -> str | None:
    """Describes a path that was given in place of a Hugging Face model directory."""
    if not os.path.exists(path):  # of any name, however long
        if (
            len(path.parts) == 2
            and not os.path.exists(path.parent)
            and path.parts[0] not in (".", "..")
        ):
            return f"no such folder; if it is a model of the hub: hf download {path} --local-dir {path.name}"
        return None
    if path.is_file():
        if path.suffix in (".safetensors", ".bin", ".json"):
            return f"a file; name the folder that it lies in: {path.parent}"
        return data(path)
    if "model_type" in _settings(path / "config.json"):
        return None
    if (path / "adapter_config.json").is_file():
        return _adapter(path)
    if (path / "checkpoints").is_dir():
        words = f"sari export --workdir {shlex.quote(str(path))} --out DIR"
        return f"the --workdir of a run; write its model: {words}"
    if (path / "snapshots").is_dir():
        inside = sorted(path.glob("snapshots/*/config.json"))
        return f"the hub's cache; name {inside[-1].parent if inside else 'a folder in snapshots'}"
    if (path / "config.json").is_file():
        return None
    inside = sorted(each.parent for each in path.glob("*/config.json"))
    if inside:
        return f"a folder of model directories; name one: {', '.join(map(str, inside[:3]))}"
    if found := _dataset(path):
        return f"{found[0]}, and no model"
    return None


def _adapter(path: Path) -> str:
    settings = _settings(path / "adapter_config.json")
    base = str(settings.get("base_model_name_or_path") or "BASE")
    mapping = settings.get("auto_mapping")
    opened = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    if not opened:
        omni = "omni" in base.lower()
        opened = "Qwen2_5OmniThinker" if omni else "Qwen2Audio"
        opened += "ForConditionalGeneration"
    out = f"{path}-merged"
    code = (
        f"import peft, transformers as t; base, adapter, out = {base!r}, {str(path)!r}, {out!r};"
        f" model = peft.PeftModel.from_pretrained(t.{opened}.from_pretrained(base), adapter);"
        " model.merge_and_unload().save_pretrained(out);"
        " t.AutoProcessor.from_pretrained(base).save_pretrained(out)"
    )
    return (
        f"a PEFT adapter without its model, {base}; merge them and name {out}, or export the run without --adapter:"
        f" {_python(code)}"
    )


def _folder(path: Path) -> str:
    for name in ("records.jsonl", "captions.jsonl"):
        if (path / name).is_file():
            return f"a folder; name the file {path / name}"
    if (path / "adapter_config.json").is_file():
        return "the folder of a PEFT adapter; name a file of rows"
    if found := _dataset(path):
        return found[1]
    if (path / "config.json").is_file() and any(any(path.glob(kind)) for kind in WEIGHTS):
        return "a model's folder; give it as --model, and name a file of rows"
    inside = sorted(each for kind in ("*.jsonl", "*.json", "*.csv") for each in path.glob(kind))
    found = f": {', '.join(map(str, inside[:3]))}" if inside else ""
    return f"a folder; name a file in it{found}"


def _dataset(path: Path) -> tuple[str, str] | None:
    """Returns the kind of Hugging Face dataset that a folder is, and the same with the command that converts it."""
    splits = _settings(path / "dataset_dict.json").get("splits")
    if isinstance(splits, list) and splits and isinstance(splits[0], str):
        path = path / splits[0]
    out = Path(f"{path.resolve().name or 'rows'}.jsonl")
    if (path / "state.json").is_file() or any(path.glob("*.arrow")):
        kind, read = "a dataset that save_to_disk wrote", f"load_from_disk({str(path)!r})"
        features = json.dumps(_settings(path / "dataset_info.json").get("features", {}))
        with_audio = '"_type": "Audio"' in features
    else:
        files = sorted({*path.glob("*.parquet"), *path.glob("*/*.parquet")})
        if not files:
            return None
        kind = "a dataset as the hub keeps it, in Parquet"
        names = {file.name.split("-")[0].removesuffix(".parquet") for file in files}
        split = "train" if "train" in names or len(names) > 1 else names.pop()
        read = f"load_dataset({str(path)!r}, split={split!r})"
        with_audio = _contains_audio(files[0])
    if with_audio:
        return kind, f"{kind}; {AUDIO_INSIDE}"
    return kind, _way(kind, "datasets", f"datasets.{read}", out)


def _beside(path: Path) -> Path:
    """Returns a name for the JSONL of a file's rows, beside the file and not its own name."""
    out = path.with_suffix(".jsonl")
    return out if out != path else path.with_name(f"{path.stem}-lines.jsonl")


def _way(kind: str, package: str, read: str, out: Path) -> str:
    lines = "" if package == "datasets" else ", orient='records', lines=True"
    code = f"import {package}; {read}.to_json({str(out)!r}{lines})"
    return f"{kind}; write its rows to JSONL, and name that: {_python(code)} (pip install {package} pyarrow)"


def _json(kind: str, path: Path, inside: str, out: Path) -> str:
    rows = f"json.load(open({str(path)!r}, encoding='utf-8-sig')){inside}"
    code = f"import json; [print(json.dumps(row)) for row in {rows}]"
    words = f"{_python(code)} > {shlex.quote(str(out))}"
    return f"{kind}, where each line should be an object; write its rows so: {words}"


def _one_object(path: Path, out: Path) -> str | None:
    """Describes a file with a single object over many lines, or with one object that contains the rows."""
    with path.open("rb") as file:
        first, second = file.readline(), file.readline()
    try:
        whole = json.loads(first)
        if second.strip():
            return None
    except (ValueError, RecursionError):
        if path.stat().st_size > WHOLE:
            return None
        whole = _settings(path)
    rows = (
        [
            name
            for name, value in whole.items()
            if isinstance(value, list) and value and all(isinstance(row, dict) for row in value)
        ]
        if isinstance(whole, dict) and not {"audio", "question", "caption"} & whole.keys()
        else []
    )
    if len(rows) == 1:
        return _json(f"one JSON object with its rows in {rows[0]!r}", path, f"[{rows[0]!r}]", out)
    if whole and second.strip():
        code = (
            f"import json; print(json.dumps(json.load(open({str(path)!r}, encoding='utf-8-sig'))))"
        )
        words = f"{_python(code)} > {shlex.quote(str(out))}"
        return f"one JSON object over many lines; write it on one: {words}"
    return None


def _contains_audio(path: Path) -> bool:
    """Whether a Parquet file has a column of audio, as `datasets` stores it, by the names in the file's last bytes."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - (1 << 20)))
        tail = file.read()
    return b"\x18\x05bytes" in tail and b"\x18\x04path" in tail


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _head(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except (OSError, ValueError):  # the reader of the file raises it
        return b""


def _python(code: str) -> str:
    """Returns a shell command that runs the code; the quotes work in any shell."""
    if set(code) & set('"$`\\!'):
        return f"python -c {shlex.quote(code)}"
    return f'python -c "{code}"'
