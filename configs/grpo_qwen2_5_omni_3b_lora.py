"""GRPO of Qwen2.5-Omni-3B's thinker by adapters: SARI's second stage, for few chips.

Reproduces: the stage, on your data, with LoRA in the place of full training, which the paper does not do. Settings are
ours: rank 32 on all the decoder's projections, alpha 64, ten times the rate of full training. Not run at full size yet.
Score the data first: sari score. On one chip:

    sari compile --config configs/grpo_qwen2_5_omni_3b_lora.py --topology v6e:1x1
    sari train --config configs/grpo_qwen2_5_omni_3b_lora.py --workdir runs/grpo-omni-3b-lora \
        --config.model.path=runs/sft-omni-3b-model --config.data.train=scored.jsonl
"""

from sari_jax.train.config import defaults


def get_config():
    config = defaults()
    config.stage = "grpo"
    config.steps = 1000
    config.batch_size = 1
    config.model.dtype = "bfloat16"
    config.model.frozen_dtype = "bfloat16"
    config.model.size = "qwen2_5_omni_3b"
    config.model.remat = "layer"
    config.model.adapter.rank = 32
    config.model.adapter.alpha = 64.0
    config.optimizer.learning_rate = 1e-5
    config.grpo.max_tokens = 256
    config.data.order = "easy_to_hard"
    return config
