"""Structured-reasoning SFT of Qwen2-Audio-7B-Instruct: SARI's first stage.

Reproduces: the stage, on your data; the paper publishes no hyperparameters, so these are ours. Not run at full size
yet. Weights, gradients and Adam's moments in float32 need about 127 GB over all devices, besides activations.

    sari compile --config configs/sft_qwen2_audio_7b.py --topology v5e:4x4
    sari train --config configs/sft_qwen2_audio_7b.py --workdir runs/sft-7b \
        --config.model.path=Qwen2-Audio-7B-Instruct --config.data.train=questions.jsonl
"""

from sari_jax.train.config import defaults


def get_config():
    config = defaults()
    config.stage = "sft"
    config.steps = 250
    config.batch_size = 16
    config.model.dtype = "bfloat16"
    config.model.size = "qwen2_audio_7b"
    config.model.remat = "layer"
    config.mesh.decode_tensor = 8  # for sample completions; on as many chips or more
    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup_steps = 20
    config.optimizer.schedule = "cosine"
    return config
