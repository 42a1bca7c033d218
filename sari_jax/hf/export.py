"""Parameters out as a Hugging Face directory: the source directory again, with trained tensors in place of the old.

Same shards, names, dtypes and headers; what was not trained, or is not ours at all, comes out byte for byte.
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

Places = dict[str, tuple[Rule, int | None]]


def export(params: Params, config: AudioLMConfig, source: Path | str, out: Path | str) -> None:
    """Writes `params` as a Hugging Face directory like `source`, aside and then renamed.

    Adapters are merged into their kernels in float32, and rounded as the source's dtype does. Beside the parameters,
    memory holds one tensor.

    Args:
        params: all of them, or those that were trained: the others are copied from the source.

    Raises:
        InputError: a source that cannot be read; `out` exists and is not empty, or cannot be written.
    """
    source, out = Path(source), Path(out)
    shards, family = Shards(source), read_family(source)
    flat, names = traverse_util.flatten_dict(params), family.names(shards.tensors)
    where: Places = {
        name: (rule, i if rule.layers else None)
        for rule in tensor_rules(config, names)
        if rule.path in flat or _factors(rule, flat)
        for i, name in enumerate(rule.names)
    }
    if config.decoder.tied and names.embedding in where:
        # Some checkpoints store the tied head a second time.
        where[names.unembedding] = where[names.embedding]
    scale = config.adapter.scale if config.adapter else 0.0
    with new_directory(out) as aside:
        try:
            for path in _beside(source, shards, family):
                target = aside / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
            for file in tqdm(shards.files, "export", file=sys.stderr, disable=None, delay=2):
                _write_shard(shards, file, where, flat, scale, aside / file)
                shutil.copymode(source / file, aside / file)
        except OSError as error:
            reading = str(error.filename or "").startswith(str(source))
            raise InputError(
                f"{error.filename}: cannot be read ({error.strerror}); make it readable"
                if reading
                else f"{out}: cannot be written ({error.strerror}); make room, or name another --out"
            ) from error


def _beside(source: Path, shards: Shards, family: Family) -> list[Path]:
    """The files that go with the weights, in folders too.

    Left out are pickles, which would hold the weights as they were, and what is hidden, a download's own notes.
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
    shards: Shards, file: str, where: Places, flat: dict, scale: float, out: Path
) -> None:
    """A shard like the source's. By hand, since safetensors writes only what is in memory whole."""
    header, places = shards.header(file)
    with (shards.model_dir / file).open("rb") as old, out.open("wb") as new:
        new.write(header)
        for name, (begin, end) in sorted(places.items(), key=lambda place: place[1]):
            if name in where:
                array = _ours(*where[name], flat, shards, name, scale)
                new.write(_theirs(where[name][0], array, shards.tensors[name], name))
            else:
                old.seek(len(header) + begin)
                _copy(old, new, end - begin)


def _factors(rule: Rule, flat: dict) -> list[Array | np.ndarray]:
    """A and B of the adapter beside a kernel; none where there is none."""
    *place, leaf = rule.path
    paths = [(*place, "lora_a"), (*place, "lora_b")]
    return [flat[path] for path in paths] if leaf == "kernel" and paths[0] in flat else []


def _ours(
    rule: Rule, layer: int | None, flat: dict, shards: Shards, name: str, scale: float
) -> np.ndarray:
    """One tensor as it was trained: its own, or the source's with its adapter."""
    mine = lambda array: on_host(array if layer is None else array[layer])  # noqa: E731
    kernel = mine(flat[rule.path]) if rule.path in flat else rule.to_ours(shards.read(name))
    factors = [mine(array).astype(np.float32) for array in _factors(rule, flat)]
    return merge_adapter(kernel.astype(np.float32), *factors, scale) if factors else kernel


def _theirs(rule: Rule, array: np.ndarray, stored: Stored, name: str) -> memoryview:
    """The bytes of one tensor of theirs, as the source's header promises them."""
    with np.errstate(over="ignore"):  # told below, by name
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
