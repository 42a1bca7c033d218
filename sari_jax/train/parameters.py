"""The parameters that a run starts from: those of the model directory and new adapters, and which are trained."""

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
from sari_jax.models.quantized import SCALE, in_eight_bits
from sari_jax.parallel.mesh import parameter_shardings
from sari_jax.train.config import Model, Run
from sari_jax.train.optimizer import Flat, partition


def starting_params(run: Run, config: AudioLMConfig, mesh: Mesh) -> tuple[Flat, Flat]:
    """Loads (trainable, frozen) parameters, each in its dtype and sharding.

    Raises:
        InputError: a model directory that cannot be read, or a pattern in model.trainable that matches nothing.
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
    return partition(traverse_util.unflatten_dict(whole, sep="/"), run.model.trainable_patterns)


def param_dtypes(model: Model, params: Params) -> dict[str, str]:
    """The dtype of each parameter, by its flat path.

    Raises:
        InputError: a trained parameter would be kept in eight bits.
    """
    trainable, frozen = partition(params, model.trainable_patterns)
    narrow = [path for path in trainable if in_eight_bits(path) or path.endswith(SCALE)]
    if model.quantized and narrow:
        raise InputError(
            f"config: model.trainable would train {narrow[0]}, which model.frozen_dtype = {model.quantized} keeps in"
            " eight bits; choose other patterns, or another frozen_dtype"
        )
    kept = {path: _frozen_dtype(model, path) for path in frozen}
    return dict.fromkeys(trainable, model.param_dtype) | kept


def _frozen_dtype(model: Model, path: str) -> str:
    if not model.quantized:
        return model.frozen_dtype or model.param_dtype
    if path.endswith(SCALE):
        return "float32"
    return model.quantized if in_eight_bits(path) else model.dtype


def shapes_of(model: Model, config: AudioLMConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result of `starting_params` as shapes, without reading anything."""
    shapes = abstract_params(config)
    dtypes = param_dtypes(model, shapes)
    return tuple(
        {path: jax.ShapeDtypeStruct(leaf.shape, dtypes[path]) for path, leaf in part.items()}
        for part in partition(shapes, model.trainable_patterns)
    )


def learning(trainable: Collection[str]) -> dict[str, set[str]]:
    """The parts of the network that are trained as a whole, and those trained by adapters, as `models.work` needs."""
    own, adapted = set(), set()
    for path in trainable:
        (adapted if is_adapter(path) else own).add(path.split("/")[0])
    return {"learns": own, "adapted": adapted}


def table(trainable: Mapping[str, Any]) -> str:
    """A table of the trained parameters for people: path, shape and count."""
    rows = [
        (path, " x ".join(map(str, leaf.shape)), f"{leaf.size:,}")
        for path, leaf in sorted(trainable.items())
    ]
    total = sum(leaf.size for leaf in trainable.values())
    rows = [("trained", "shape", "count"), *rows, ("all of them", "", f"{total:,}")]
    path, shape, count = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(f"  {a:<{path}}  {b:<{shape}}  {c:>{count}}" for a, b, c in rows)
