"""Structured-reasoning SFT of a model of 3B or 7B parameters: SARI's first stage, in full or by adapters.

Reproduces: the stage, on your data; the paper publishes no hyperparameters, so these are ours. With `lora`, which the
paper does not do, adapters are trained instead of the model: rank 32 on all the decoder's projections, alpha 64,
dropout 0.05, ten times the rate of full training.
Costs: not run at full size yet. Memory is that of weights, gradients and Adam's moments in float32, over all devices,
besides activations. docs/scale.md says which slices were compiled for.

| configs/sft.py:         | trains                                 | memory | slice        |
|-------------------------|----------------------------------------|--------|--------------|
| `qwen2_audio_7b`        | Qwen2-Audio-7B-Instruct                | 127 GB | v5e:4x4      |
| `qwen2_5_omni_3b`       | Qwen2.5-Omni-3B's thinker              |  57 GB | v5e:2x4      |
| `qwen2_5_omni_7b`       | Qwen2.5-Omni-7B's thinker              | 125 GB | v5e:4x4      |
| `qwen2_audio_7b,lora`   | adapters of Qwen2-Audio-7B-Instruct    |        | v5e:2x2      |
| `qwen2_5_omni_3b,lora`  | adapters of Qwen2.5-Omni-3B's thinker  |        | v6e:1x1      |
| `qwen2_5_omni_7b,lora`  | adapters of Qwen2.5-Omni-7B's thinker  |        | v5e:2x2      |

Train with the settings of the slice's line:

    sari compile --config configs/sft.py:qwen2_audio_7b --topology v5e:4x4
    sari compile --config configs/sft.py:qwen2_5_omni_3b --topology v5e:2x4
    sari compile --config configs/sft.py:qwen2_5_omni_7b --topology v5e:4x4
    sari compile --config configs/sft.py:qwen2_audio_7b,lora --topology v5e:2x2 --config.mesh.decode_tensor=4
    sari compile --config configs/sft.py:qwen2_5_omni_3b,lora --topology v6e:1x1
    sari compile --config configs/sft.py:qwen2_5_omni_7b,lora --topology v5e:2x2 --config.mesh.decode_tensor=4

    sari train --config configs/sft.py:qwen2_audio_7b --workdir runs/sft-7b \
        --config.model.path=Qwen2-Audio-7B-Instruct --config.data.train=questions.jsonl
    sari train --config configs/sft.py:qwen2_5_omni_3b --workdir runs/sft-omni-3b \
        --config.model.path=Qwen2.5-Omni-3B --config.data.train=questions.jsonl
    sari train --config configs/sft.py:qwen2_5_omni_7b --workdir runs/sft-omni-7b \
        --config.model.path=Qwen2.5-Omni-7B --config.data.train=questions.jsonl
    sari train --config configs/sft.py:qwen2_audio_7b,lora --workdir runs/sft-7b-lora \
        --config.model.path=Qwen2-Audio-7B-Instruct --config.data.train=questions.jsonl --config.mesh.decode_tensor=4
"""

from sari_jax.train.config import defaults
from sari_jax.train.recipes import parse_variant

# Chips that share a layer while the full model decodes sample completions; there must be as many, or more.
DECODE_TENSOR = {"qwen2_audio_7b": 8, "qwen2_5_omni_3b": 2, "qwen2_5_omni_7b": 4}


def get_config(arg: str = ""):
    model, lora = parse_variant(arg, recipe="sft", models=DECODE_TENSOR)
    config = defaults()
    config.stage = "sft"
    config.steps = 250
    config.batch_size = 16
    config.model.dtype = "bfloat16"
    config.model.size = model
    config.model.remat = "layer"
    config.optimizer.warmup_steps = 20
    config.optimizer.schedule = "cosine"
    if lora:
        config.micro_batches = 4
        config.model.frozen_dtype = "bfloat16"
        config.model.adapter.rank = 32
        config.model.adapter.alpha = 64.0
        config.model.adapter.dropout = 0.05
        config.optimizer.learning_rate = 1e-4
    else:
        config.mesh.decode_tensor = DECODE_TENSOR[model]
        config.optimizer.learning_rate = 1e-5
    return config
