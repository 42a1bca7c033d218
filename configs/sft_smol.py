"""Structured-reasoning SFT of smol on the starter corpus: a real small language model, by adapters.

Reproduces: the paper's first stage on SmolLM2-135M with Whisper-tiny's audio encoder; settings are ours. The decoder
learns by adapters of rank 16. The projector stays as `sari model assemble smol --captions` fits it.
Costs: twenty minutes on two cores.

    sari train --config configs/sft_smol.py --workdir runs/sft-smol \
        --config.model.path=runs/smol --config.data.train=runs/starter/train.jsonl
"""

from sari_jax.train.config import defaults


def get_config():
    config = defaults()
    config.stage = "sft"
    config.steps = 60
    config.batch_size = 8
    config.model.path = "runs/smol"
    config.model.adapter.rank = 16
    config.model.adapter.alpha = 32.0
    config.data.train = "runs/starter/train.jsonl"
    config.data.style = "structured"
    config.data.limit = 200
    config.data.shapes.prompt_tokens = (128, 160)
    config.data.shapes.answer_tokens = (72,)
    config.data.shapes.audio_seconds = (3.2, 4.0)
    config.data.shapes.audios = (1,)
    config.data.window = 8
    config.data.keep_features_gb = 1.0
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 2.5e-3
    config.optimizer.warmup_steps = 10
    config.optimizer.schedule = "cosine"
    config.samples_every = 60
    config.held_out.max_tokens = 80
    config.checkpoint.every = 30
    return config
