"""FLOPs per step by formula, independent of mesh, compiler and rematerialisation.

XLA's `cost_analysis()` is not used, because it counts the body of a scan once.
"""

from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Int

from sari_jax.models.config import AudioLMConfig
from sari_jax.models.encoder import frame_counts

# Each chip's bfloat16 FLOP/s and bytes of memory per second, as the makers publish them.
CHIPS = {
    "v5e": (197e12, 0.81e12),
    "v6e": (918e12, 1.6e12),
    "v5p": (459e12, 2.8e12),
    "H100": (989e12, 3.35e12),
}
# JAX's `device_kind` -> chip. The H100 is the SXM one.
KINDS = {
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "NVIDIA H100 80GB HBM3": "H100",
}
# The backward pass takes twice the FLOPs of the forward pass: as many again for the gradients of the inputs, and as
# many for those of the weights.
BACKWARD = 2


def encoder_flops(config: AudioLMConfig, frames: int) -> float:
    """FLOPs of one clip's forward pass through the tower: `frames` frames inside it, 50 per second."""
    c = config.encoder
    stem = 2 * 3 * (2 * frames * c.mel_bins * c.width + frames * c.width**2)
    attended = frames * min(frames, c.window // 2 or frames)
    layer = frames * (8 * c.width**2 + 4 * c.width * c.ffn) + 4 * attended * c.width
    return float(stem + c.layers * layer)


def projector_flops(config: AudioLMConfig, frames: int) -> float:
    """FLOPs of projecting one clip's features, one for each pair of `frames` frames inside the tower."""
    return float(2 * (frames // 2) * config.encoder.width * config.decoder.width)


def decoder_flops(config: AudioLMConfig, tokens: int, attended: int, predicted: int) -> float:
    """FLOPs of the decoder's forward pass over `tokens` tokens.

    Args:
        attended: pairs of (query, key) over all tokens.
        predicted: positions that go through the head.
    """
    c = config.decoder
    query = c.heads * c.head_dim
    kv = c.kv_heads * c.head_dim
    layer = 2 * c.width * (2 * query + 2 * kv) + 6 * c.width * c.ffn
    return float(
        tokens * c.layers * layer
        + 4 * attended * c.layers * query
        + 2 * predicted * c.width * c.vocabulary
    )


def group_flops(config: AudioLMConfig, prompt: int, completions: Sequence[int]) -> float:
    """FLOPs of the decoder's forward pass over a prompt of `prompt` tokens, audio included, and its completions.

    Args:
        completions: tokens of each.
    """
    new = sum(completions)
    attended = prompt**2 / 2 + sum(n * (prompt + n / 2) for n in completions)
    return decoder_flops(config, prompt + new, int(attended), new)


def step_flops(
    config: AudioLMConfig,
    samples: Int[np.ndarray, "B A"],
    prompts: Int[np.ndarray, "B"],
    completions: Int[np.ndarray, "B G"],
    *,
    passes: int,
    updates: int = 1,
    learns: Collection[str],
    adapted: Collection[str] = (),
) -> float:
    """FLOPs of a training step.

    Args:
        samples: the number of samples of each clip at 16 kHz; 0 for no clip.
        prompts: the number of tokens of each prompt, audio included.
        completions: the number of tokens of each completion.
        passes: forward passes: 1 in SFT; 3 in GRPO, because sampling and the reference are one each. A frozen tower is
            run once in any case.
        updates: passes that are differentiated.
        learns: the trained parts among tower, projector and decoder. For a frozen decoder, its weights' gradients are
            left out; its inputs' gradients are still needed for the projector.
        adapted: the parts that have adapters, through which gradients flow. The adapters' own FLOPs are not counted:
            they are rank / width of their kernels', a few hundredths.
    """
    frames = frame_counts(samples[samples > 0])[0]
    tower = sum(encoder_flops(config, n) for n in frames.tolist())
    projector = sum(projector_flops(config, n) for n in frames.tolist())
    groups = zip(prompts.tolist(), completions.tolist(), strict=True)
    decoder = sum(group_flops(config, prompt, lengths) for prompt, lengths in groups)

    decoder_passes = passes + updates * (BACKWARD if "decoder" in learns else BACKWARD / 2)
    projector_passes = passes + updates * BACKWARD
    tower_passes = 1
    if "tower" in (*learns, *adapted):
        tower_passes = passes + updates * (BACKWARD if "tower" in learns else BACKWARD / 2)
    return decoder_passes * decoder + projector_passes * projector + tower_passes * tower


def chip(kind: str) -> tuple[float, float] | None:
    """Returns (FLOP/s, bytes/s) of a device by JAX's `device_kind`; None for an unknown kind."""
    return CHIPS[KINDS[kind]] if kind in KINDS else None
