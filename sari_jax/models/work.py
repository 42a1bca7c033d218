"""Work per step by formula: independent of mesh, compiler and rematerialisation.

Not taken from `cost_analysis()`, which counts the body of a scan once.
"""

from sari_jax.models.config import AudioLMConfig


def encoder_flops(config: AudioLMConfig, frames: int) -> float:
    """Of one clip's forward pass over `frames` frames inside the tower (50 per second)."""
    c = config.encoder
    stem = 2 * 3 * (2 * frames * c.mel_bins * c.width + frames * c.width**2)
    layer = frames * (8 * c.width**2 + 4 * c.width * c.ffn) + 4 * frames**2 * c.width
    return float(stem + c.layers * layer + frames * c.width * config.decoder.width)


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


def group_flops(config: AudioLMConfig, prompt: int, group: int, completion: int) -> float:
    """One forward pass of a prompt of `prompt` tokens and its `group` completions of `completion` tokens."""
    tokens = prompt + group * completion
    attended = prompt**2 / 2 + group * completion * (prompt + completion / 2)
    return decoder_flops(config, tokens, int(attended), group * completion)
