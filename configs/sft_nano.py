"""Structured-reasoning SFT of nano on the starter corpus: the embedded default.

Reproduces: the paper's first stage in miniature; settings are ours. Costs: about six minutes on two cores.

    sari train --config configs/sft_nano.py --workdir runs/sft \
        --config.model.path=runs/nano --config.data.train=runs/starter/train.jsonl
"""

from sari_jax.train.config import defaults


def get_config():
    config = defaults()
    config.stage = "sft"
    config.steps = 420
    config.batch_size = 16
    config.model.path = "runs/nano"
    config.data.train = "runs/starter/train.jsonl"
    config.data.style = "structured"
    config.data.shapes.prompt_tokens = (160,)
    config.data.shapes.answer_tokens = (56,)
    config.data.shapes.audio_seconds = (3.2,)
    config.data.keep_features_gb = 1.0
    config.data.shapes.audios = (1,)
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 20
    config.optimizer.schedule = "cosine"
    config.optimizer.weight_decay = 0.05
    config.checkpoint.every = 140
    return config
