"""What bounds a GRPO step of Qwen2-Audio-7B on accelerators: a sheet by formula, nothing measured.

    python -m sari_jax.scale.roofline

Each part of a step takes at least its matrix products at the chips' peak, and at least the bytes that it has to read
from their memory; links between chips are left out.
"""

import dataclasses

from sari_jax.models.config import AudioLMConfig
from sari_jax.models.sizes import SIZES
from sari_jax.models.work import BACKWARD, CHIPS, encoder_flops, group_flops


@dataclasses.dataclass(frozen=True)
class Step:
    """A GRPO step over `chips` chips that share parameters and prompts evenly; bfloat16, the tower frozen."""

    chips: int = 8
    prompts: int = 8
    num_completions: int = 8
    prompt_tokens: int = 850  # of which a clip of 30 s takes 750
    new_tokens: int = 256


def bounds(
    step: Step, chip: str, config: AudioLMConfig = SIZES["qwen2_audio_7b"]
) -> dict[str, float]:
    """The least seconds of each part of a step."""
    flops, bandwidth = (step.chips * peak for peak in CHIPS[chip])
    c = config.decoder
    layer = c.width * c.head_dim * (2 * c.heads + 2 * c.kv_heads) + 3 * c.width * c.ffn
    weights = 2 * (c.layers * layer + c.vocabulary * c.width)  # bytes
    token = 2 * 2 * c.layers * c.kv_heads * c.head_dim  # bytes of keys and values
    lengths = [step.new_tokens] * step.num_completions
    tower = step.prompts * encoder_flops(config, 1500)
    prefill = step.prompts * group_flops(config, step.prompt_tokens, [])
    forward = step.prompts * group_flops(config, step.prompt_tokens, lengths)
    # A step of decoding reads the weights, each prompt's keys once, and each completion's own, half of them on average.
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
    """A Markdown table, one chip a row."""
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
