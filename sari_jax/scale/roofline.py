"""A table of what bounds a GRPO step of Qwen2-Audio-7B on accelerators, by formula; nothing is measured.

    python -m sari_jax.scale.roofline

Each part of a step takes at least the time of its matrix products at the chips' peak, and at least the time to read its
bytes from their memory. Links between chips are left out.
"""

import dataclasses

from sari_jax.models.config import AudioLMConfig
from sari_jax.models.sizes import SIZES
from sari_jax.models.work import BACKWARD, CHIPS, encoder_flops, group_flops


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A GRPO step in bfloat16 with the tower frozen; `chips` chips share parameters and prompts evenly."""

    chips: int = 8
    prompts: int = 8
    num_completions: int = 8
    # A clip of 30 s takes 750 of them.
    prompt_tokens: int = 850
    new_tokens: int = 256


def bounds(
    step: Step, chip: str, config: AudioLMConfig = SIZES["qwen2_audio_7b"]
) -> dict[str, float]:
    """Returns a lower bound of the seconds of each part of a step."""
    flops, bandwidth = (step.chips * peak for peak in CHIPS[chip])
    c = config.decoder
    layer = c.width * c.head_dim * (2 * c.heads + 2 * c.kv_heads) + 3 * c.width * c.ffn
    # Bytes of the weights, and of one token's keys and values.
    weights = 2 * (c.layers * layer + c.vocabulary * c.width)
    token = 2 * 2 * c.layers * c.kv_heads * c.head_dim
    lengths = [step.new_tokens] * step.num_completions
    tower = step.prompts * encoder_flops(config, 1500)
    prefill = step.prompts * group_flops(config, step.prompt_tokens, [])
    forward = step.prompts * group_flops(config, step.prompt_tokens, lengths)
    # A decoding step reads the weights, each prompt's cache once, and each completion's cache, which is half full on
    # average.
    seen = step.prompts * (step.prompt_tokens + step.num_completions * step.new_tokens / 2)
    read = step.new_tokens * (weights + token * seen) / bandwidth
    return {
        "tower": tower / flops,
        "prefill": prefill / flops,
        "decode": max(read, (forward - prefill) / flops),
        "reference": forward / flops,
        "update": (1 + BACKWARD) * forward / flops,
    }


def sheet(step: Step) -> str:
    """Returns a Markdown table with one chip per row."""
    parts = list(bounds(step, next(iter(CHIPS))))
    lines = [
        f"| {step.chips} chips | {' | '.join(parts)} | step, s | steps an hour |",
        "|---" * (len(parts) + 3) + "|",
    ]
    for name in CHIPS:
        found = bounds(step, name)
        total = sum(found.values())
        cells = " | ".join(f"{found[part]:.2f}" for part in parts)
        lines.append(f"| {name} | {cells} | {total:.2f} | {3600 / total:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(sheet(Step()))
