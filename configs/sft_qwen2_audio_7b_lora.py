"""Structured-reasoning SFT of Qwen2-Audio-7B-Instruct by adapters: SARI's first stage, for few chips.

Reproduces: the stage, on your data, with LoRA in the place of full training, which the paper does not do. Settings are
ours: rank 32 on all the decoder's projections, alpha 64, dropout 0.05, ten times the rate of full training. Not run at
full size yet. On four chips:

    sari compile --config configs/sft_qwen2_audio_7b_lora.py --topology v5e:2x2 --config.mesh.decode_tensor=4
    sari train --config configs/sft_qwen2_audio_7b_lora.py --workdir runs/sft-7b-lora \
        --config.model.path=Qwen2-Audio-7B-Instruct --config.data.train=questions.jsonl --config.mesh.decode_tensor=4
"""

from sari_jax.train.config import defaults


def get_config():
    config = defaults()
    config.stage = "sft"
    config.steps = 250
    config.batch_size = 16
    config.micro_batches = 4
    config.model.dtype = "bfloat16"
    config.model.frozen_dtype = "bfloat16"
    config.model.size = "qwen2_audio_7b"
    config.model.remat = "layer"
    config.model.adapter.rank = 32
    config.model.adapter.alpha = 64.0
    config.model.adapter.dropout = 0.05
    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_steps = 20
    config.optimizer.schedule = "cosine"
    return config
