"""Curriculum-guided GRPO of nano on the starter corpus: the embedded default.

Reproduces: the paper's second stage in miniature; settings are ours. Costs: about six minutes on two cores.

    sari train --config configs/grpo_nano.py --workdir runs/grpo \
        --config.model.path=runs/sft-model --config.data.train=runs/scored.jsonl
"""

from sari_jax.train.config import defaults


def get_config():
    config = defaults()
    config.stage = "grpo"
    config.steps = 260
    config.batch_size = 16
    config.model.path = "runs/sft-model"
    config.data.train = "runs/scored.jsonl"
    config.data.style = "structured"
    config.data.order = "easy_to_hard"
    # The model answers half of the questions never right or always right: their groups have no spread.
    config.data.drop_solved = True
    config.data.shapes.prompt_tokens = (160, 192)
    # One clip in thousands is longer than 3.2 s.
    config.data.shapes.audio_seconds = (3.2, 4.0)
    config.data.keep_features_gb = 1.0
    config.data.shapes.audios = (1,)
    config.grpo.num_completions = 8
    config.grpo.max_tokens = 48
    config.grpo.kl_coefficient = 0.03
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 3e-4
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 5
    config.held_out.max_tokens = 48
    config.checkpoint.every = 80
    return config
