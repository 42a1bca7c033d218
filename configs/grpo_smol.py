"""Curriculum-guided GRPO of smol on the starter corpus, by adapters on the SFT model.

Reproduces: the paper's second stage on SmolLM2-135M with Whisper-tiny's audio encoder; settings are ours. There is no
reference: it would cost one more pass over every step's completions. Results: experiments/README.md.
Costs: twenty minutes on two cores.

    sari train --config configs/grpo_smol.py --workdir runs/grpo-smol \
        --config.model.path=runs/sft-smol-model --config.data.train=runs/scored.jsonl
"""

from sari_jax.train.config import defaults


def get_config():
    config = defaults()
    config.stage = "grpo"
    config.steps = 20
    config.batch_size = 4
    config.model.path = "runs/sft-smol-model"
    config.model.adapter.rank = 16
    config.model.adapter.alpha = 32.0
    config.data.train = "runs/scored.jsonl"
    config.data.style = "structured"
    config.data.order = "easy_to_hard"
    # The groups of solved questions have no spread.
    config.data.drop_solved = True
    config.data.shapes.prompt_tokens = (128, 160)
    config.data.shapes.audio_seconds = (3.2, 4.0)
    config.data.shapes.audios = (1,)
    config.data.keep_features_gb = 1.0
    config.grpo.num_completions = 8
    config.grpo.max_tokens = 72
    config.grpo.kl_coefficient = 0.0
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 3
    config.samples_every = 10
    config.held_out.max_tokens = 80
    config.checkpoint.every = 10
    return config
