"""A run's adapter out as a PEFT directory: what peft.PeftModel.from_pretrained adds to the model it was trained on."""

import json
import re
from pathlib import Path

import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

from sari_jax.atomic import new_directory, told
from sari_jax.errors import InputError
from sari_jax.hf.config import read_family
from sari_jax.hf.export import on_host
from sari_jax.hf.names import Names, rules
from sari_jax.hf.shards import Shards
from sari_jax.models.audio_lm import Params
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.lora import is_adapter

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"  # peft's names


def export_adapter(
    params: Params, config: AudioLMConfig, source: Path | str, out: Path | str
) -> None:
    """Writes the adapter of `config` as peft would have saved it, in float32, aside and then renamed.

    Args:
        params: those that were trained.
        source: the model directory that the adapter belongs to; its name stands in what is written.

    Raises:
        InputError: there is no adapter, or more than that was trained, which a PEFT directory has no place for; `out`
            exists and is not empty, or cannot be written.
    """
    flat, adapter = traverse_util.flatten_dict(params, sep="/"), config.adapter
    if adapter is None:
        raise InputError(
            "this run trained no adapter (model.adapter.rank = 0); export it without --adapter"
        )
    beside = sorted(path for path in flat if not is_adapter(path))
    if beside:
        raise InputError(
            f"this run trained {beside[0]} beside its adapter ({len(beside)} parameters in all), and an adapter alone"
            " would lose that; export it without --adapter, merged"
        )
    names = read_family(source).names(Shards(source).tensors)
    tensors, modules = {}, []
    for rule in rules(config, names):
        *place, leaf = rule.path
        if leaf != "kernel" or "/".join([*place, "lora_a"]) not in flat:
            continue
        modules.append(module_name(rule.name, names))
        factors = [on_host(flat["/".join([*place, name])]) for name in ("lora_a", "lora_b")]
        for layer, name in enumerate(rule.names):
            for theirs, ours in zip("AB", factors, strict=True):
                matrix = rule.to_theirs(ours[layer] if rule.layers else ours)
                key = f"base_model.model.{module_name(name, names)}.lora_{theirs}.weight"
                tensors[key] = np.ascontiguousarray(matrix, np.float32)
    settings = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(source),
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "use_rslora": adapter.rslora,
        "lora_dropout": adapter.dropout,
        # Matched against whole names; a plain list would take the tower's projections for the decoder's.
        "target_modules": "|".join(re.escape(name).replace(r"\{\}", r"\d+") for name in modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    with new_directory(out) as aside, told(out):
        (aside / CONFIG).write_text(json.dumps(settings, indent=2) + "\n")
        save_file(tensors, aside / TENSORS, metadata={"format": "pt"})


def module_name(hub_name: str, names: Names) -> str:
    """What transformers calls the module of a tensor. The hub's names are those of an older version of it."""
    module = hub_name.removesuffix(".weight")
    if module.startswith(names.decoder + "."):
        return "model.language_model" + module.removeprefix(names.decoder)
    return "model." + module.removeprefix("thinker.")
