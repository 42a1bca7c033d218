"""Structured-reasoning SFT of nano on the starter corpus: the embedded default.

Reproduces: the paper's first stage in miniature, on the first 200 questions of the file; settings are ours.
Costs: about one minute on two cores.

    sari train --config configs/sft_nano.py --workdir runs/sft \
        --config.model.path=runs/nano --config.data.train=runs/starter/train.jsonl
"""

from sari_jax.train.config import defaults


def get_config():
    config = defaults()
    config.stage = "sft"
    config.steps = 150
    config.batch_size = 16
    config.model.path = "runs/nano"
    config.data.train = "runs/starter/train.jsonl"
    config.data.limit = 200
    config.data.style = "structured"
    config.data.shapes.prompt_tokens = (160, 192)
    config.data.shapes.answer_tokens = (48,)
    # One clip in thousands is longer than 3.2 s.
    config.data.shapes.audio_seconds = (3.2, 4.0)
    config.data.keep_features_gb = 1.0
    config.data.shapes.audios = (1,)
    # Muon reaches in a hundred steps what AdamW reaches in four hundred.
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 6e-3
    config.optimizer.warmup_steps = 20
    config.optimizer.schedule = "cosine"
    config.optimizer.weight_decay = 0.05
    config.held_out.max_tokens = 48
    config.checkpoint.every = 50
    return config
