"""GRPO of Qwen2-Audio-7B-Instruct by adapters: SARI's second stage on one v6e chip, or four of v5e.

Reproduces: the stage, on your data, with LoRA in the place of full training, which the paper does not do. Settings are
ours: rank 32 on all the decoder's projections, alpha 64, ten times the rate of full training. Not run at full size yet.
Score the data first: sari score. On four chips of v5e, one of v6e, or one of v5e with a base of eight bits
(docs/scale.md):

    sari compile --config configs/grpo_qwen2_audio_7b_lora.py --topology v5e:2x2 --config.mesh.decode_tensor=4
    sari compile --config configs/grpo_qwen2_audio_7b_lora.py --topology v6e:1x1 --config.batch_size=1
    sari compile --config configs/grpo_qwen2_audio_7b_lora.py --topology v5e:1x1 --config.batch_size=1 \
        --config.model.frozen_dtype=int8
    sari train --config configs/grpo_qwen2_audio_7b_lora.py --workdir runs/grpo-7b-lora \
        --config.model.path=runs/sft-7b-model --config.data.train=scored.jsonl --config.mesh.decode_tensor=4

The last line is for four chips; on one, its last setting gives way to those of that chip's line above.
"""

from sari_jax.train.config import defaults


def get_config():
    config = defaults()
    config.stage = "grpo"
    config.steps = 1000
    config.batch_size = 4
    config.model.dtype = "bfloat16"
    config.model.frozen_dtype = "bfloat16"
    config.model.size = "qwen2_audio_7b"
    config.model.remat = "layer"
    config.model.adapter.rank = 32
    config.model.adapter.alpha = 64.0
    config.optimizer.learning_rate = 1e-5
    config.grpo.max_tokens = 256
    config.data.order = "easy_to_hard"
    return config
