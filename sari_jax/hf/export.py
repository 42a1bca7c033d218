"""Parameters out as a Hugging Face directory: the source directory again, with trained tensors in place of the old.

Same shards, names, dtypes and headers; what was not trained, or is not ours at all, comes out byte for byte.
"""

import shutil
from pathlib import Path
from typing import BinaryIO

import jax
import numpy as np
from flax import traverse_util
from jax.experimental import multihost_utils
from jaxtyping import Array

from sari_jax.atomic import new_directory
from sari_jax.errors import InputError
from sari_jax.hf.config import read_family
from sari_jax.hf.family import Family
from sari_jax.hf.names import Rule, rules
from sari_jax.hf.shards import FLOATS, PICKLES, Shards, within
from sari_jax.models.audio_lm import Params
from sari_jax.models.config import AudioLMConfig

Places = dict[str, tuple[Rule, int | None]]


def export(params: Params, config: AudioLMConfig, source: Path | str, out: Path | str) -> None:
    """Writes `params` as a Hugging Face directory like `source`, aside and then renamed.

    Beside the parameters, memory holds one tensor.

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
        for rule in rules(config, names)
        if rule.path in flat
        for i, name in enumerate(rule.names)
    }
    if config.decoder.tied and names.embedding in where:
        # Some checkpoints store the tied head a second time.
        where[names.unembedding] = where[names.embedding]
    with new_directory(out) as aside:
        try:
            for path in _beside(source, shards, family):
                shutil.copyfile(path, aside / path.name)
            for file in shards.files:
                _write_shard(shards, file, where, flat, aside / file)
                shutil.copymode(source / file, aside / file)
        except OSError as error:
            raise InputError(
                f"{out}: cannot be written ({error.strerror}); make room, or name another --out"
            ) from error


def _beside(source: Path, shards: Shards, family: Family) -> list[Path]:
    """The files that go with the weights. Pickles do not: they would hold the weights as they were."""
    pickle = lambda path: any(path.match(pattern) for pattern in PICKLES)  # noqa: E731
    return [
        within(source, path.name)
        for path in sorted(source.iterdir())
        if path.is_file()
        and path.name not in shards.files
        and (path.name in family.carried_files or not pickle(path))
    ]


def _write_shard(shards: Shards, file: str, where: Places, flat: dict, out: Path) -> None:
    """A shard like the source's. By hand, since safetensors writes only what is in memory whole."""
    header, places = shards.header(file)
    with (shards.model_dir / file).open("rb") as old, out.open("wb") as new:
        new.write(header)
        for name, (begin, end) in sorted(places.items(), key=lambda place: place[1]):
            if name in where:
                new.write(_theirs(*where[name], flat, FLOATS[shards.tensors[name].dtype]))
            else:
                old.seek(len(header) + begin)
                _copy(old, new, end - begin)


def _theirs(rule: Rule, layer: int | None, flat: dict, dtype: str) -> memoryview:
    """The bytes of one tensor of theirs."""
    array = flat[rule.path] if layer is None else flat[rule.path][layer]
    theirs = rule.to_theirs(_on_host(array)).astype(dtype, order="C")
    return memoryview(theirs.reshape(-1).view(np.uint8))


def _on_host(array: Array) -> np.ndarray:
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(jax.device_get(array))


def _copy(old: BinaryIO, new: BinaryIO, size: int, block: int = 1 << 24) -> None:
    while size:
        part = old.read(min(size, block))
        new.write(part)
        size -= len(part)
