"""R1-AQA's recipe: GRPO of Qwen2-Audio-7B-Instruct on AVQA, answers alone.

Reproduces: the published settings of R1-AQA (arXiv 2503.11197): G=8, temperature 1, rate 1e-6, beta 0.04, 256 new
tokens, 1,000 steps, rewards for accuracy and format one to one. Ours: the batch, AdamW's other settings, the constant
rate, the frozen tower, the prompt's words, and the format, an <answer> alone. `sari data build avqa` writes its
questions with "video" replaced by "audio". Not run at full size.

    sari compile --config configs/grpo_r1_aqa.py --topology v5e:4x4
    sari train --config configs/grpo_r1_aqa.py --workdir runs/r1-aqa \
        --config.model.path=Qwen2-Audio-7B-Instruct --config.data.train=runs/avqa/records.jsonl
"""

from sari_jax.train.config import defaults


def get_config():
    config = defaults()
    config.stage = "grpo"
    config.steps = 1000
    config.batch_size = 16
    config.model.dtype = "bfloat16"
    config.model.size = "qwen2_audio_7b"
    config.model.remat = "layer"
    config.model.reference_dtype = "bfloat16"
    # Needs at least as many chips.
    config.mesh.decode_tensor = 8
    config.data.style = "direct"
    config.grpo.num_completions = 8
    config.grpo.temperature = 1.0
    config.grpo.max_tokens = 256
    config.grpo.kl_coefficient = 0.04
    config.grpo.rewards = ("accuracy=1", "format=1")
    config.optimizer.learning_rate = 1e-6
    return config
