"""Curriculum-guided GRPO of nano on the starter corpus: the embedded default.

Reproduces: the paper's second stage in miniature; settings are ours. Costs: about six minutes on two cores.

    sari train --config configs/grpo_nano.py --workdir runs/grpo \
        --config.model.path=runs/sft-model --config.data.train=runs/scored.jsonl
"""

from sari_jax.train.config import defaults


def get_config():
    config = defaults()
    config.stage = "grpo"
    config.steps = 110
    config.batch_size = 16
    config.model.path = "runs/sft-model"
    config.data.train = "runs/scored.jsonl"
    config.data.style = "structured"
    config.data.order = "easy_to_hard"
    config.data.shapes.prompt_tokens = (160,)
    config.data.shapes.audio_seconds = (3.2,)
    config.data.keep_features_gb = 1.0
    config.data.shapes.audios = (1,)
    config.grpo.completions = 8
    config.grpo.max_tokens = 56
    config.grpo.kl_coefficient = 0.02
    config.optimizer.learning_rate = 5e-5
    config.optimizer.warmup_steps = 5
    config.checkpoint.every = 55
    return config
