"""Curriculum-guided GRPO of a model of 3B or 7B parameters: SARI's second stage, in full or by adapters.

Reproduces: the stage, on your data, easy questions first. Settings are ours, after R1-AQA and Ke-Omni-R: G=8,
temperature 1, rate 1e-6, beta 0.04. With `lora`, which the paper does not do, adapters are trained instead of the
model: rank 32 on all the decoder's projections, alpha 64, ten times the rate, completions of up to 256 tokens.
Costs: not run at full size yet. Memory is that of weights and Adam's moments in float32 and the reference in bfloat16,
over all devices, besides activations. Slices hold one prompt per chip; docs/scale.md says which were compiled for.

| configs/grpo.py:        | trains                                 | memory | slices                             |
|-------------------------|----------------------------------------|--------|------------------------------------|
| `qwen2_audio_7b`        | Qwen2-Audio-7B-Instruct                | 112 GB | v5e:4x4, v6e:2x4 and larger slices |
| `qwen2_5_omni_3b`       | Qwen2.5-Omni-3B's thinker              |  50 GB | v5e:2x4                            |
| `qwen2_5_omni_7b`       | Qwen2.5-Omni-7B's thinker              | 110 GB | v5e:4x4, v6e:2x4 and larger slices |
| `qwen2_audio_7b,lora`   | adapters of Qwen2-Audio-7B-Instruct    |        | v5e:2x2; one chip of v6e, or of    |
|                         |                                        |        | v5e with a base of eight bits      |
| `qwen2_5_omni_3b,lora`  | adapters of Qwen2.5-Omni-3B's thinker  |        | v6e:1x1                            |
| `qwen2_5_omni_7b,lora`  | adapters of Qwen2.5-Omni-7B's thinker  |        | v5e:2x2                            |

Score the data first: sari score. Then train with the settings of the slice's line:

    sari compile --config configs/grpo.py:qwen2_audio_7b --topology v5e:4x4
    sari compile --config configs/grpo.py:qwen2_5_omni_3b --topology v5e:2x4 --config.batch_size=8
    sari compile --config configs/grpo.py:qwen2_5_omni_7b --topology v5e:4x4
    sari compile --config configs/grpo.py:qwen2_audio_7b,lora --topology v5e:2x2 --config.mesh.decode_tensor=4
    sari compile --config configs/grpo.py:qwen2_audio_7b,lora --topology v6e:1x1 --config.batch_size=1
    sari compile --config configs/grpo.py:qwen2_audio_7b,lora --topology v5e:1x1 --config.batch_size=1 \
        --config.model.frozen_dtype=int8
    sari compile --config configs/grpo.py:qwen2_5_omni_3b,lora --topology v6e:1x1
    sari compile --config configs/grpo.py:qwen2_5_omni_7b,lora --topology v5e:2x2 --config.mesh.decode_tensor=4

    sari train --config configs/grpo.py:qwen2_audio_7b --workdir runs/grpo-7b \
        --config.model.path=runs/sft-7b-model --config.data.train=scored.jsonl
    sari train --config configs/grpo.py:qwen2_5_omni_3b --workdir runs/grpo-omni-3b \
        --config.model.path=runs/sft-omni-3b-model --config.data.train=scored.jsonl --config.batch_size=8
    sari train --config configs/grpo.py:qwen2_5_omni_7b --workdir runs/grpo-omni-7b \
        --config.model.path=runs/sft-omni-7b-model --config.data.train=scored.jsonl
    sari train --config configs/grpo.py:qwen2_audio_7b,lora --workdir runs/grpo-7b-lora \
        --config.model.path=runs/sft-7b-model --config.data.train=scored.jsonl --config.mesh.decode_tensor=4
"""

from sari_jax.train.config import defaults
from sari_jax.train.recipes import parse_variant

# Chips that share a layer while the full model decodes; there must be as many, or more.
DECODE_TENSOR = {"qwen2_audio_7b": 8, "qwen2_5_omni_3b": 2, "qwen2_5_omni_7b": 4}


def get_config(arg: str = ""):
    model, lora = parse_variant(arg, recipe="grpo", models=DECODE_TENSOR)
    config = defaults()
    config.stage = "grpo"
    config.steps = 1000
    config.model.dtype = "bfloat16"
    config.model.size = model
    config.model.remat = "layer"
    config.data.order = "easy_to_hard"
    if lora:
        # One prompt per chip: 3B is for one chip, 7B for four.
        config.batch_size = 1 if model == "qwen2_5_omni_3b" else 4
        config.model.frozen_dtype = "bfloat16"
        config.model.adapter.rank = 32
        config.model.adapter.alpha = 64.0
        config.optimizer.learning_rate = 1e-5
        config.grpo.max_tokens = 256
    else:
        config.batch_size = 16
        config.model.reference_dtype = "bfloat16"
        config.mesh.decode_tensor = DECODE_TENSOR[model]
    return config
