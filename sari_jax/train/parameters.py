"""The parameters that a run starts from: the model directory's, with fresh adapters, and which of them learn."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
from flax import traverse_util
from jax.sharding import Mesh

from sari_jax.errors import InputError
from sari_jax.hf.load import load_params
from sari_jax.models.audio_lm import Params, abstract_params
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.lora import init_adapter, is_adapter
from sari_jax.models.quantized import SCALE, is_quantized
from sari_jax.parallel.mesh import parameter_shardings
from sari_jax.train.config import Model, Run
from sari_jax.train.optimizer import Flat, partition


def starting_params(run: Run, config: AudioLMConfig, mesh: Mesh) -> tuple[Flat, Flat]:
    """(trainable, frozen), each in its dtype and place.

    Raises:
        InputError: a model directory that cannot be read; a pattern of what is trained that matches nothing.
    """
    shapes = traverse_util.flatten_dict(abstract_params(config), sep="/")
    dtypes = param_dtypes(run.model, abstract_params(config))
    params = load_params(run.model.path, config, dtype=dtypes, mesh=mesh)
    adapter = init_adapter(
        shapes,
        run.seed,
        dtype=run.model.param_dtype,
        shardings=parameter_shardings(mesh, shapes),
    )
    whole = {**traverse_util.flatten_dict(params, sep="/"), **adapter}
    return partition(traverse_util.unflatten_dict(whole, sep="/"), run.model.learns)


def param_dtypes(model: Model, params: Params) -> dict[str, str]:
    """How each parameter is kept, by its flat path."""
    trainable, frozen = partition(params, model.learns)
    dtypes = dict.fromkeys(trainable, model.param_dtype)
    if not model.quantized:
        return dtypes | dict.fromkeys(frozen, model.frozen_dtype or model.param_dtype)
    for path in frozen:
        dtypes[path] = model.quantized if is_quantized(path) else model.dtype
        if path.endswith(f"/{SCALE}"):
            dtypes[path] = "float32"
    learning = [path for path in trainable if is_quantized(path) or path.endswith(f"/{SCALE}")]
    if learning:
        raise InputError(
            f"config: model.trainable would train {learning[0]}, which model.frozen_dtype = {model.quantized} keeps in"
            " eight bits; choose other patterns, or another frozen_dtype"
        )
    return dtypes


def shapes_of(model: Model, config: AudioLMConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """(trainable, frozen) as shapes: what `starting_params` gives, where nothing is read."""
    shapes = abstract_params(config)
    dtypes = param_dtypes(model, shapes)
    return tuple(
        {path: jax.ShapeDtypeStruct(leaf.shape, dtypes[path]) for path, leaf in part.items()}
        for part in partition(shapes, model.learns)
    )


def learning(trainable: Collection[str]) -> dict[str, set[str]]:
    """Which parts of the network learn as a whole, and which by adapters, as `models.work` asks."""
    own, adapted = set(), set()
    for path in trainable:
        (adapted if is_adapter(path) else own).add(path.split("/")[0])
    return {"learns": own, "adapted": adapted}


def table(trainable: Mapping[str, Any]) -> str:
    """What is trained, for people: path, shape and count of every parameter."""
    rows = [
        (path, " x ".join(map(str, leaf.shape)), f"{leaf.size:,}")
        for path, leaf in sorted(trainable.items())
    ]
    total = sum(leaf.size for leaf in trainable.values())
    rows = [("trained", "shape", "count"), *rows, ("all of them", "", f"{total:,}")]
    path, shape, count = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(f"  {a:<{path}}  {b:<{shape}}  {c:>{count}}" for a, b, c in rows)
