"""nano's decoder: a Qwen2 language model from scratch, small enough to learn in minutes on two cores."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class NanoSize:
    """The decoder's sizes, chosen by us. `tokens` limits the vocabulary before the special tokens.

    Four layers learned no more than two in the same number of steps, and took nearly twice the time.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 384
    rope_theta: float = 10_000.0
    tokens: int = 2048


def text_config(size: NanoSize) -> dict[str, Any]:
    """Returns the decoder's part of config.json, without the vocabulary's size."""
    return {
        "model_type": "qwen2",
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "intermediate_size": size.ffn,
        "max_position_embeddings": 8192,
        "rope_theta": size.rope_theta,
        "rms_norm_eps": 1e-6,
    }


def decoder_tensors(
    size: NanoSize, vocabulary: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Returns random float32 weights under Qwen2-Audio's names; norms are one, biases zero."""
    tensors = {
        "language_model.model.embed_tokens.weight": normal(rng, (vocabulary, size.width), 0.02),
        "language_model.model.norm.weight": np.ones(size.width, np.float32),
    }
    kv = size.kv_heads * (size.width // size.heads)
    linear = {
        "self_attn.q_proj": (size.width, size.width),
        "self_attn.k_proj": (kv, size.width),
        "self_attn.v_proj": (kv, size.width),
        "self_attn.o_proj": (size.width, size.width),
        "mlp.gate_proj": (size.ffn, size.width),
        "mlp.up_proj": (size.ffn, size.width),
        "mlp.down_proj": (size.width, size.ffn),
    }
    for layer in range(size.layers):
        prefix = f"language_model.model.layers.{layer}"
        for name, shape in linear.items():
            # The two maps that write to the residual stream start smaller, as in GPT-2.
            shrink = (2 * size.layers) ** -0.5 if name.endswith(("o_proj", "down_proj")) else 1.0
            tensors[f"{prefix}.{name}.weight"] = normal(rng, shape, 0.6 * shrink * shape[1] ** -0.5)
            if name.endswith(("q_proj", "k_proj", "v_proj")):
                tensors[f"{prefix}.{name}.bias"] = np.zeros(shape[0], np.float32)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}.{name}.weight"] = np.ones(size.width, np.float32)
    return tensors


def normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> np.ndarray:
    return (std * rng.standard_normal(shape)).astype(np.float32)
