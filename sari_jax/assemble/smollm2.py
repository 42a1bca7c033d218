"""SmolLM2-135M-Instruct out of its GGUF file, as a Qwen2 language model.

A Llama model is a Qwen2 model whose query, key and value biases are zero.
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def read_smollm2(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, int], list[tuple[str, str]]]:
    """(text_config, tensors under Qwen2-Audio's names, token -> id, merges)."""
    reader = gguf.GGUFReader(path)
    field = lambda name: reader.fields[name].contents()  # noqa: E731
    config = {
        "model_type": "qwen2",
        "hidden_size": int(field("llama.embedding_length")),
        "num_hidden_layers": int(field("llama.block_count")),
        "num_attention_heads": int(field("llama.attention.head_count")),
        "num_key_value_heads": int(field("llama.attention.head_count_kv")),
        "intermediate_size": int(field("llama.feed_forward_length")),
        "max_position_embeddings": int(field("llama.context_length")),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(field("llama.rope.freq_base"))},
        "rms_norm_eps": float(field("llama.attention.layer_norm_rms_epsilon")),
    }
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors = {}
    for tensor in reader.tensors:
        array = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        kind, _, part = tensor.name.partition(".")
        if tensor.name == "token_embd.weight":
            tensors["language_model.model.embed_tokens.weight"] = array
        elif tensor.name == "output_norm.weight":
            tensors["language_model.model.norm.weight"] = array
        elif kind == "blk":
            layer, name, _ = part.split(".")
            array = _unpermute(array, heads[name]) if name in heads else array
            tensors[f"language_model.model.layers.{layer}.{LAYER[name]}.weight"] = array
    for name in [name for name in tensors if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))]:
        tensors[name.replace(".weight", ".bias")] = np.zeros(len(tensors[name]), np.float32)
    vocabulary = {token: i for i, token in enumerate(field("tokenizer.ggml.tokens"))}
    merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
    return config, tensors, vocabulary, merges


def _unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF interleaves the two halves of each head's rotary pairs; this puts them apart again."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))
