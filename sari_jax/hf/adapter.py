"""Exports a run's adapter as a PEFT directory, which peft.PeftModel.from_pretrained adds to its base model."""

import json
import re
from pathlib import Path

import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

from sari_jax.atomic import new_directory, os_errors_as_input_error
from sari_jax.errors import InputError
from sari_jax.hf.config import read_family
from sari_jax.hf.export import on_host
from sari_jax.hf.names import Names, Rule, tensor_rules
from sari_jax.hf.shards import Shards
from sari_jax.models.audio_lm import Params
from sari_jax.models.config import AudioLMConfig

# peft's names of the files.
CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"


def export_adapter(
    params: Params, config: AudioLMConfig, source: Path | str, out: Path | str
) -> None:
    """Writes the adapter of `config` in float32 as peft would save it, to a temporary directory that is then renamed.

    Whole modules that were trained beside it, for instance a new projector, are written as peft's `modules_to_save`.

    Args:
        params: the trained parameters.
        source: the model directory that the adapter belongs to. The adapter's config names it.

    Raises:
        InputError: there is no adapter, or parameters beside it were trained that are no whole module of transformers;
            `out` exists and is not empty, or cannot be written.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    adapter = config.adapter
    if adapter is None:
        raise InputError(
            "this run trained no adapter (model.adapter.rank = 0); export it without --adapter"
        )
    names = read_family(source).names(Shards(source).tensors)
    tensors, adapted, saved = _tensors(flat, config, names)
    settings = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(source),
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "use_rslora": adapter.rslora,
        "lora_dropout": adapter.dropout,
        # peft matches this pattern with full names. A list of names would match the tower's projections too.
        "target_modules": "|".join(re.escape(name).replace(r"\{\}", r"\d+") for name in adapted),
        "modules_to_save": saved or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    with new_directory(out) as aside, os_errors_as_input_error(out):
        (aside / CONFIG).write_text(json.dumps(settings, indent=2) + "\n")
        save_file(tensors, aside / TENSORS, metadata={"format": "pt"})


def _tensors(
    flat: Params, config: AudioLMConfig, names: Names
) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    """Returns peft's tensors by name, the names of modules with an adapter, and those of modules saved as a whole.

    Raises:
        InputError: parameters beside the adapter were trained that are no whole module.
    """
    tensors: dict[str, np.ndarray] = {}
    adapted: list[str] = []
    saved: list[str] = []

    def put(rule: Rule, path: str, leaf: str) -> None:
        """Adds one of our parameters, as a tensor of each layer's module."""
        array = on_host(flat[path])
        for layer, name in enumerate(rule.names):
            theirs = rule.to_theirs(array[layer] if rule.layers else array)
            key = f"base_model.model.{module_name(name, names)}.{leaf}"
            tensors[key] = np.ascontiguousarray(theirs, np.float32)

    for module, leaves in _by_module(config, names).items():
        if f"{module}/lora_a" in flat:
            adapted.append(module_name(leaves["kernel"].name, names))
            put(leaves["kernel"], f"{module}/lora_a", "lora_A.weight")
            put(leaves["kernel"], f"{module}/lora_b", "lora_B.weight")
        trained = [leaf for leaf in leaves if f"{module}/{leaf}" in flat]
        if not trained:
            continue
        if f"{module}/lora_a" in flat or "embedding" in leaves or len(trained) < len(leaves):
            raise InputError(
                f"this run trained {module}/{trained[0]} beside its adapter, and an adapter alone cannot hold it: it is"
                " not a whole projection or norm; export the run without --adapter, merged"
            )
        for leaf, rule in leaves.items():
            put(rule, f"{module}/{leaf}", "bias" if leaf == "bias" else "weight")
        saved += [module_name(name, names) for name in rule.names]
    return tensors, adapted, saved


def _by_module(config: AudioLMConfig, names: Names) -> dict[str, dict[str, Rule]]:
    """The rules of a model's parameters: flat path of the module -> last key (`kernel`, `bias`, ...) -> rule."""
    found: dict[str, dict[str, Rule]] = {}
    for rule in tensor_rules(config, names):
        *module, leaf = rule.path
        found.setdefault("/".join(module), {})[leaf] = rule
    return found


def module_name(hub_name: str, names: Names) -> str:
    """The name in transformers of a tensor's module. The hub's names are those of an older transformers."""
    if hub_name == names.unembedding:
        return "lm_head"
    module = hub_name.removesuffix(".weight").removesuffix(".bias")
    if module.startswith(names.decoder + "."):
        return "model.language_model" + module.removeprefix(names.decoder)
    return "model." + module.removeprefix("thinker.").removeprefix("model.")
