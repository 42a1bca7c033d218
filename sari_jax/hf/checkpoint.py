"""Hugging Face weights in and out: safetensors only, one or many shards, never a pickle.

An export is the source directory again with the trained tensors in place of the old ones: same shards, same
names, same dtypes, and whatever was not loaded carried through.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sari_jax.atomic import new_directory
from sari_jax.errors import InputError
from sari_jax.hf.names import Rule, qwen2_audio_rules
from sari_jax.models.audio_lm import Params, abstract_params
from sari_jax.models.config import AudioLMConfig

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
EMBED = "language_model.model.embed_tokens.weight"
TIED_HEAD = "language_model.lm_head.weight"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")


def weight_map(model_dir: Path | str) -> dict[str, str]:
    """Tensor name -> shard file name.

    Raises:
        InputError: no safetensors here, or a shard that the index names is missing.
    """
    model_dir = Path(model_dir)
    if (model_dir / INDEX).is_file():
        try:
            names = json.loads((model_dir / INDEX).read_text())["weight_map"]
            outside = [file for file in set(names.values()) if Path(file).name != file]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{model_dir / INDEX}: not a safetensors index; fetch it again"
            ) from error
        if outside:
            raise InputError(
                f"{model_dir / INDEX}: shard {outside[0]!r} lies outside the directory"
            )
        missing = sorted(file for file in set(names.values()) if not (model_dir / file).is_file())
        if missing:
            raise InputError(
                f"{model_dir}: shard {missing[0]} is missing ({len(missing)} in all); fetch it again"
            )
        return names
    if (model_dir / SINGLE).is_file():
        with _open(model_dir / SINGLE) as shard:
            return dict.fromkeys(shard.keys(), SINGLE)
    found = [path.name for pattern in PICKLES for path in sorted(model_dir.glob(pattern))]
    if found:
        raise InputError(
            f"{model_dir}: {found[0]} is not safetensors and only safetensors are read;"
            " convert it with transformers: save_pretrained(..., safe_serialization=True)"
        )
    raise InputError(f"{model_dir}: no {SINGLE} and no {INDEX}; is it a model directory?")


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "np") as shard:
            yield shard
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: truncated or not safetensors ({error}); fetch it again"
        ) from error


def load_params(
    model_dir: Path | str, config: AudioLMConfig, *, dtype: str | None = None
) -> Params:
    """The parameters of a Hugging Face directory, in the source's dtype unless `dtype` is given.

    Raises:
        InputError: a shard missing or truncated; a tensor missing or of another shape.
    """
    files = weight_map(model_dir)
    rules = qwen2_audio_rules(config)
    wanted = {name for rule in rules for name in rule.names}
    _check_names(model_dir, wanted, set(files), config)
    abstract = traverse_util.flatten_dict(abstract_params(config))
    params = {}
    with ExitStack() as stack:
        shards = {
            file: stack.enter_context(_open(Path(model_dir) / file))
            for file in sorted(set(files.values()))
        }
        for rule in rules:
            tensors = [rule.to_ours(_read(shards, files, name, model_dir)) for name in rule.names]
            shape = abstract[rule.path].shape[1:] if rule.layers else abstract[rule.path].shape
            for name, tensor in zip(rule.names, tensors, strict=True):
                if tensor.shape != shape:
                    raise InputError(
                        f"{model_dir}: {name} has shape {tensor.shape} (our axis order),"
                        f" config.json implies {shape}"
                    )
            array = np.stack(tensors) if rule.layers else tensors[0]
            params[rule.path] = jnp.asarray(array, dtype)
            if config.decoder.tied and rule.name == EMBED and TIED_HEAD in files:
                if not np.array_equal(array, _read(shards, files, TIED_HEAD, model_dir)):
                    raise InputError(
                        f"{model_dir}: config.json ties the head to the embedding, but {TIED_HEAD} differs from it;"
                        " set tie_word_embeddings to false"
                    )
    return traverse_util.unflatten_dict(params)


def _read(shards: dict, files: dict[str, str], name: str, model_dir: Path | str) -> np.ndarray:
    try:
        return shards[files[name]].get_tensor(name)
    except SafetensorError as error:
        raise InputError(f"{model_dir}/{files[name]}: no tensor {name}; fetch it again") from error


def _check_names(
    model_dir: Path | str, wanted: set[str], found: set[str], config: AudioLMConfig
) -> None:
    if config.decoder.tied:
        found = found - {TIED_HEAD}
    missing, unexpected = sorted(wanted - found), sorted(found - wanted)
    if missing or unexpected:
        told = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for what, names in (("missing", missing), ("unexpected", unexpected))
            if names
        ]
        raise InputError(f"{model_dir}: tensors do not fit config.json: {'; '.join(told)}")


def export(params: Params, config: AudioLMConfig, source: Path | str, out: Path | str) -> None:
    """Writes `params` as a Hugging Face directory like `source`, aside and then renamed.

    Tensors take the source's dtypes: what was loaded and not trained comes out bit for bit.

    Raises:
        InputError: `out` exists and is not empty, or cannot be written.
    """
    source, out = Path(source), Path(out)
    files = weight_map(source)
    flat = traverse_util.flatten_dict(params)
    where = {
        name: (rule, i if rule.layers else None)
        for rule in qwen2_audio_rules(config)
        for i, name in enumerate(rule.names)
    }
    if config.decoder.tied:  # some checkpoints store the tied head a second time
        where[TIED_HEAD] = where[EMBED]
    with new_directory(out) as aside:
        for path in sorted(source.iterdir()):
            if path.is_file() and path.name not in files.values() and not _is_pickle(path):
                shutil.copyfile(path, aside / path.name)
        for file in sorted(set(files.values())):
            with _open(source / file) as shard:
                tensors = {
                    name: _trained(where.get(name), flat, shard.get_tensor(name))
                    for name in shard.keys()
                }
                metadata = shard.metadata() or {"format": "pt"}
            save_file(tensors, aside / file, metadata=metadata)
            shutil.copymode(source / file, aside / file)  # save_file lets nobody else read it


def _trained(place: tuple[Rule, int | None] | None, flat: dict, old: np.ndarray) -> np.ndarray:
    if place is None:  # not ours (another modality): as it was
        return old
    rule, layer = place
    array = flat[rule.path] if layer is None else flat[rule.path][layer]
    return np.ascontiguousarray(rule.to_theirs(np.asarray(jax.device_get(array))).astype(old.dtype))


def _is_pickle(path: Path) -> bool:
    return any(path.match(pattern) for pattern in PICKLES)
