"""Curriculum-guided GRPO of Qwen2.5-Omni-3B's thinker: SARI's second stage.

Reproduces: the stage, on your data, easy questions first. Settings are ours, after R1-AQA and Ke-Omni-R: G=8,
temperature 1, rate 1e-6, beta 0.04. Not run at full size yet. Weights and Adam's moments in float32 and the reference
in bfloat16 take about 50 GB over all devices, besides activations. Score the data first: sari score.

    sari compile --config configs/grpo_qwen2_5_omni_3b.py --topology v5e:2x4 --config.batch_size=8
    sari train --config configs/grpo_qwen2_5_omni_3b.py --workdir runs/grpo-omni-3b \
        --config.model.path=runs/sft-omni-3b-model --config.data.train=scored.jsonl --config.batch_size=8
"""

from sari_jax.train.config import defaults


def get_config():
    config = defaults()
    config.stage = "grpo"
    config.steps = 1000
    config.batch_size = 16
    config.model.dtype = "bfloat16"
    config.model.size = "qwen2_5_omni_3b"
    config.model.remat = "layer"
    config.model.reference_dtype = "bfloat16"
    config.mesh.decode_tensor = 2  # on as many chips or more
    config.data.order = "easy_to_hard"
    return config
