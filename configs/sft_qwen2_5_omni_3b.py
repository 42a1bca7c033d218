"""Structured-reasoning SFT of Qwen2.5-Omni-3B's thinker: SARI's first stage.

Reproduces: the stage, on your data; the paper publishes no hyperparameters, so these are ours. Not run at full size
yet. Weights, gradients and Adam's moments in float32 need about 57 GB over all devices, besides activations.

    sari compile --config configs/sft_qwen2_5_omni_3b.py --topology v5e:2x4
    sari train --config configs/sft_qwen2_5_omni_3b.py --workdir runs/sft-omni-3b \
        --config.model.path=Qwen2.5-Omni-3B --config.data.train=questions.jsonl
"""

from sari_jax.train.config import defaults


def get_config():
    config = defaults()
    config.stage = "sft"
    config.steps = 250
    config.batch_size = 16
    config.model.dtype = "bfloat16"
    config.model.size = "qwen2_5_omni_3b"
    config.model.remat = "layer"
    config.mesh.decode_tensor = 2  # for sample completions; on as many chips or more
    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup_steps = 20
    config.optimizer.schedule = "cosine"
    return config
