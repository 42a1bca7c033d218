"""The safetensors files of a model directory: their tensors, and reading a part of one tensor.

safetensors maps a whole file into memory, and pages that were read count as this process's until the file is closed. So
a shard is opened for one tensor at a time. This reads a small header again each time, but a model of any size is loaded
with little more memory than its parameters take.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from sari_jax.errors import InputError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Stored(NamedTuple):
    """One tensor's entry in a shard's header."""

    file: str
    dtype: str
    shape: tuple[int, ...]


class Shards:
    """All tensors of a directory by name.

    Raises:
        InputError: the directory has no safetensors; or a shard is missing, cut short or outside the directory.
    """

    def __init__(self, model_dir: Path | str):
        self.model_dir = Path(model_dir)
        self.tensors: dict[str, Stored] = {}
        index = weight_map(self.model_dir)
        self.files = sorted(set(index.values()))
        for file in self.files:
            with _open(self.model_dir / file) as shard:
                for name in shard.keys():
                    if name in self.tensors:
                        raise InputError(
                            f"{self.model_dir}/{file}: holds {name}, and {self.tensors[name].file} holds it too;"
                            " fetch both again"
                        )
                    part = shard.get_slice(name)
                    stored = Stored(file, part.get_dtype(), tuple(part.get_shape()))
                    self.tensors[name] = stored
        absent = [n for n, file in index.items() if getattr(self.tensors.get(n), "file", 0) != file]
        if absent:
            raise InputError(
                f"{self.model_dir}/{index[absent[0]]}: no tensor {absent[0]}; fetch it again"
                f" ({len(absent)} tensors are not in the shards that the index names)"
            )

    def read(self, name: str, part: tuple[slice, ...] | None = None) -> np.ndarray:
        """Reads a tensor, or a part of it, in its own dtype."""
        stored = self.tensors[name]
        part = part or tuple(slice(None) for _ in stored.shape)
        # Slices may reach past the end, as numpy's may.
        bounds = (axis.indices(size) for axis, size in zip(part, stored.shape, strict=True))
        with _open(self.model_dir / stored.file) as shard:
            return shard.get_slice(name)[tuple(slice(begin, end) for begin, end, _ in bounds)]

    def header(self, file: str) -> tuple[bytes, dict[str, tuple[int, int]]]:
        """A shard's header byte for byte, and the offsets after it at which each tensor's bytes begin and end."""
        with (self.model_dir / file).open("rb") as opened:
            length = opened.read(8)
            text = opened.read(int.from_bytes(length, "little"))
        offsets = {
            name: tuple(entry["data_offsets"])
            for name, entry in json.loads(text).items()
            if name != "__metadata__"
        }
        return length + text, offsets


def weight_map(model_dir: Path) -> dict[str, str]:
    """Tensor name -> shard file name.

    Raises:
        InputError: the directory has no safetensors, or a shard that the index names is missing or outside it.
    """
    if (model_dir / INDEX).is_file():
        path = within(model_dir, INDEX)
        if (model_dir / SINGLE).is_file():
            raise InputError(
                f"{model_dir}: holds both {SINGLE} and {INDEX}, and only one of them can be the model; remove the other"
            )
        try:
            names = json.loads(path.read_text())["weight_map"]
            unnamed = [file for file in set(names.values()) if Path(file).name != file]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: not a safetensors index; fetch it again") from error
        if not names:
            raise InputError(f"{path}: names no tensor; fetch it again")
        if unnamed:
            raise InputError(f"{path}: shard {unnamed[0]!r} lies outside the directory")
        files = sorted(set(names.values()))
        missing = [file for file in files if not (model_dir / file).is_file()]
        if missing:
            raise InputError(
                f"{model_dir}: shard {missing[0]} is missing ({len(missing)} in all); fetch it again"
            )
        for file in files:
            within(model_dir, file)
        return names
    if (model_dir / SINGLE).is_file():
        with _open(within(model_dir, SINGLE)) as shard:
            return dict.fromkeys(shard.keys(), SINGLE)
    found = [path.name for pattern in PICKLES for path in sorted(model_dir.glob(pattern))]
    if found:
        raise InputError(
            f"{model_dir}: {found[0]} is not safetensors and only safetensors are read;"
            " convert it with transformers: save_pretrained(..., safe_serialization=True)"
        )
    raise InputError(f"{model_dir}: no {SINGLE} and no {INDEX}; is it a model directory?")


def within(model_dir: Path, file: str) -> Path:
    """The path of a file of the directory.

    Raises:
        InputError: a symbolic link leads out of the directory. Only links into the `blobs` of a hub cache, where the
            files of its `snapshots` are stored, are allowed.
    """
    path, root = model_dir / file, model_dir.resolve()
    allowed = [root] + ([root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [])
    if not any(path.resolve().is_relative_to(place) for place in allowed):
        raise InputError(f"{path}: a symbolic link out of the directory; put the file itself there")
    return path


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "np") as shard:
            yield shard
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: truncated or not safetensors ({error}); fetch it again"
        ) from error
