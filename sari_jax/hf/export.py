"""Exports parameters as a Hugging Face directory: a copy of the source directory with the trained tensors in it.

Shards, names, dtypes and headers stay the same. Tensors that were not trained or are not used are copied byte for byte.
"""

import shutil
import sys
from pathlib import Path
from typing import BinaryIO

import jax
import numpy as np
from flax import traverse_util
from jax.experimental import multihost_utils
from jaxtyping import Array
from tqdm import tqdm

from sari_jax.atomic import new_directory
from sari_jax.errors import InputError
from sari_jax.hf.config import read_family
from sari_jax.hf.family import Family
from sari_jax.hf.names import Rule, tensor_rules
from sari_jax.hf.shards import FLOATS, PICKLES, Shards, Stored, within
from sari_jax.models.audio_lm import Params
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.lora import merge_adapter

# Tensor name -> the rule of its parameter, and its layer if the parameter is stacked.
Exported = dict[str, tuple[Rule, int | None]]


def export(params: Params, config: AudioLMConfig, source: Path | str, out: Path | str) -> None:
    """Writes `params` as a directory like `source`, first to a temporary directory that is then renamed.

    Adapters are merged into their kernels in float32 and rounded to the source's dtype. Beside the parameters, memory
    holds one tensor.

    Args:
        params: all parameters, or the trained ones; the others are copied from the source.

    Raises:
        InputError: the source cannot be read; `out` exists and is not empty, or cannot be written.
    """
    source = Path(source)
    out = Path(out)
    shards = Shards(source)
    family = read_family(source)
    names = family.names(shards.tensors)
    flat = traverse_util.flatten_dict(params)
    exported: Exported = {
        name: (rule, i if rule.layers else None)
        for rule in tensor_rules(config, names)
        if rule.path in flat or _adapter_factors(rule, flat)
        for i, name in enumerate(rule.names)
    }
    if config.decoder.tied and names.embedding in exported:
        # Some checkpoints store the tied head a second time.
        exported[names.unembedding] = exported[names.embedding]
    scale = config.adapter.scale if config.adapter else 0.0
    with new_directory(out) as aside:
        try:
            for path in _other_files(source, shards, family):
                target = aside / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
            for file in tqdm(shards.files, "export", file=sys.stderr, disable=None, delay=2):
                _write_shard(shards, file, exported, flat, scale, aside / file)
                shutil.copymode(source / file, aside / file)
        except OSError as error:
            reading = str(error.filename or "").startswith(str(source))
            raise InputError(
                f"{error.filename}: cannot be read ({error.strerror}); make it readable"
                if reading
                else f"{out}: cannot be written ({error.strerror}); make room, or name another --out"
            ) from error


def _other_files(source: Path, shards: Shards, family: Family) -> list[Path]:
    """The files beside the weights, also those in folders.

    Pickles are left out, because they would hold the old weights, and hidden files, because they belong to a download.
    """
    found = []
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if any(part.startswith(".") for part in name.parts) or str(name) in shards.files:
            continue
        if any(path.match(p) for p in PICKLES) and path.name not in family.carried_files:
            continue
        within(source, str(name))
        if path.is_symlink() and not path.exists():
            raise InputError(f"{path}: a link to nothing; take it away, or fetch the file again")
        if path.is_file():
            found.append(path)
    return found


def _write_shard(
    shards: Shards, file: str, exported: Exported, flat: dict, scale: float, out: Path
) -> None:
    """Writes a shard like the source's, tensor by tensor. safetensors would need all tensors in memory at once."""
    header, offsets = shards.header(file)
    with (shards.model_dir / file).open("rb") as old, out.open("wb") as new:
        new.write(header)
        for name, (begin, end) in sorted(offsets.items(), key=lambda entry: entry[1]):
            if name in exported:
                rule, layer = exported[name]
                array = _trained_tensor(rule, layer, flat, shards, name, scale)
                new.write(_to_bytes(rule, array, shards.tensors[name], name))
            else:
                old.seek(len(header) + begin)
                _copy(old, new, end - begin)


def _adapter_factors(rule: Rule, flat: dict) -> list[Array | np.ndarray]:
    """A and B of the adapter beside a kernel; empty if there is none."""
    *module, leaf = rule.path
    paths = [(*module, "lora_a"), (*module, "lora_b")]
    return [flat[path] for path in paths] if leaf == "kernel" and paths[0] in flat else []


def _trained_tensor(
    rule: Rule, layer: int | None, flat: dict, shards: Shards, name: str, scale: float
) -> np.ndarray:
    """One tensor as it was trained: the parameter itself, or the source's kernel with its adapter merged."""

    def of_layer(array: Array | np.ndarray) -> np.ndarray:
        return on_host(array if layer is None else array[layer])

    kernel = of_layer(flat[rule.path]) if rule.path in flat else rule.to_ours(shards.read(name))
    factors = [of_layer(array).astype(np.float32) for array in _adapter_factors(rule, flat)]
    return merge_adapter(kernel.astype(np.float32), *factors, scale) if factors else kernel


def _to_bytes(rule: Rule, array: np.ndarray, stored: Stored, name: str) -> memoryview:
    """The bytes of one tensor, of the shape and dtype in the source's header.

    Raises:
        InputError: the tensor has another shape, or is not finite in that dtype.
    """
    # An overflow raises InputError below, with the tensor's name.
    with np.errstate(over="ignore"):
        theirs = rule.to_theirs(array).astype(FLOATS[stored.dtype], order="C", copy=False)
    if theirs.shape != stored.shape:
        raise InputError(
            f"{name} was trained with shape {theirs.shape}; its source has {stored.shape}"
        )
    if not np.isfinite(theirs).all():
        raise InputError(
            f"{name} is not finite in {stored.dtype}, its source's dtype; export an earlier --step"
        )
    return memoryview(theirs.reshape(-1).view(np.uint8))


def on_host(array: Array | np.ndarray) -> np.ndarray:
    """The values of an array, gathered from all hosts if need be."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(jax.device_get(array))


def _copy(old: BinaryIO, new: BinaryIO, size: int, block: int = 1 << 24) -> None:
    while size:
        part = old.read(min(size, block))
        if not part:
            raise InputError(f"{old.name}: became shorter while it was read; fetch it again")
        new.write(part)
        size -= len(part)
