"""Work per step by formula: independent of mesh, compiler and rematerialisation.

Not taken from `cost_analysis()`, which counts the body of a scan once.
"""

from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Int

from sari_jax.models.config import AudioLMConfig
from sari_jax.models.encoder import frame_counts

# Of a chip in bfloat16: FLOP/s, and bytes of memory per second; as their makers give them.
CHIPS = {
    "v5e": (197e12, 0.81e12),
    "v6e": (918e12, 1.6e12),
    "v5p": (459e12, 2.8e12),
    "H100": (989e12, 3.35e12),
}
# By JAX's names for a device's kind; the H100 is that with SXM.
KINDS = {
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "NVIDIA H100 80GB HBM3": "H100",
}
BACKWARD = (
    2  # times the forward pass: the gradients of the inputs, and as much for those of the weights
)


def encoder_flops(config: AudioLMConfig, frames: int) -> float:
    """Of one clip's forward pass over `frames` frames inside the tower (50 per second)."""
    c = config.encoder
    stem = 2 * 3 * (2 * frames * c.mel_bins * c.width + frames * c.width**2)
    seen = frames * min(frames, c.window // 2 or frames)
    layer = frames * (8 * c.width**2 + 4 * c.width * c.ffn) + 4 * seen * c.width
    return float(stem + c.layers * layer)


def projector_flops(config: AudioLMConfig, frames: int) -> float:
    """Of the features of as many frames inside the tower, which come out in pairs."""
    return float(2 * (frames // 2) * config.encoder.width * config.decoder.width)


def decoder_flops(config: AudioLMConfig, tokens: int, attended: int, predicted: int) -> float:
    """Of a forward pass over `tokens` tokens.

    Args:
        attended: pairs of (query, key) over all tokens.
        predicted: positions that go through the head.
    """
    c = config.decoder
    query, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    layer = 2 * c.width * (2 * query + 2 * kv) + 6 * c.width * c.ffn
    return float(
        tokens * c.layers * layer
        + 4 * attended * c.layers * query
        + 2 * predicted * c.width * c.vocabulary
    )


def group_flops(config: AudioLMConfig, prompt: int, completions: Sequence[int]) -> float:
    """One forward pass of a prompt of `prompt` tokens, sound's included, and its completions of these lengths."""
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
    """Of one whole step.

    Args:
        samples: of each clip at 16 kHz; 0 for none.
        passes: forward passes: 1 in SFT; 3 in GRPO, as sampling and the reference are one each. A frozen tower runs
            once in any case.
        updates: of those passes, how many are differentiated.
        learns: those of tower, projector and decoder that do. Where the decoder does not, its weights' gradients are
            left out, and its inputs' lead to the projector.
        adapted: those of them that have adapters, which the gradient passes by. Their own work is not counted: a few
            hundredths of their kernels', the rank over the width.
    """
    frames = frame_counts(samples[samples > 0])[0]
    heard = sum(encoder_flops(config, n) for n in frames.tolist())
    placed = sum(projector_flops(config, n) for n in frames.tolist())
    groups = zip(prompts.tolist(), completions.tolist(), strict=True)
    read = sum(group_flops(config, prompt, lengths) for prompt, lengths in groups)
    through = passes + updates * (BACKWARD if "decoder" in learns else BACKWARD / 2)
    heard_back = updates * (BACKWARD if "tower" in learns else BACKWARD / 2)
    return (
        through * read
        + (passes + updates * BACKWARD) * placed
        + (passes + heard_back if "tower" in (*learns, *adapted) else 1) * heard
    )


def chip(kind: str) -> tuple[float, float] | None:
    """(FLOP/s, bytes/s) of a device by JAX's name for its kind; None where it is not known."""
    return CHIPS[KINDS[kind]] if kind in KINDS else None
