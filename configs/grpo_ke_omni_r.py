"""Ke-Omni-R's recipe: GRPO of Qwen2.5-Omni-7B's thinker with a short free chain.

Reproduces: the published settings of Ke-Omni-R: G=8 (a later script of its authors takes 4), temperature 1, rate 1e-6,
beta 0.01, 64 new tokens, rewards for accuracy and format two to one, up to 6,400 steps over AVQA's and MusicBench's
questions. Ours: the batch, AdamW's other settings, the constant rate, the frozen tower, the prompt's words and the
tags. Not run at full size.

    sari compile --config configs/grpo_ke_omni_r.py --topology v5e:4x4
    sari train --config configs/grpo_ke_omni_r.py --workdir runs/ke-omni-r \
        --config.model.path=Qwen2.5-Omni-7B --config.data.train=questions.jsonl
"""

from sari_jax.train.config import defaults


def get_config():
    config = defaults()
    config.stage = "grpo"
    config.steps = 6400
    config.batch_size = 16
    config.model.dtype = "bfloat16"
    config.model.size = "qwen2_5_omni_7b"
    config.model.remat = "layer"
    config.model.reference_dtype = "bfloat16"
    # Needs at least as many chips.
    config.mesh.decode_tensor = 4
    config.data.style = "free"
    config.grpo.num_completions = 8
    config.grpo.temperature = 1.0
    config.grpo.max_tokens = 64
    config.grpo.kl_coefficient = 0.01
    config.grpo.rewards = ("accuracy=2", "format=1")
    config.optimizer.learning_rate = 1e-6
    return config
