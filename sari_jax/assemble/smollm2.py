"""A reader of SmolLM2-135M-Instruct's GGUF file, which returns it as a Qwen2 language model.

A Llama model is a Qwen2 model whose query, key and value biases are zero.
"""

import dataclasses
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from sari_jax.errors import InputError

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmolLM2:
    """The content of the file.

    Attributes:
        text_config: the decoder's part of config.json, without the vocabulary's size.
        tensors: float32 weights under Qwen2-Audio's names.
        vocabulary: token -> id.
        merges: the tokenizer's merges, in order.
        special: the tokens that stand for no text, such as <|im_end|>.
    """

    text_config: dict[str, Any]
    tensors: dict[str, np.ndarray]
    vocabulary: dict[str, int]
    merges: list[tuple[str, str]]
    special: list[str]


def read_smollm2(path: Path) -> SmolLM2:
    """Reads the file and dequantizes its weights to float32.

    Raises:
        InputError: the file is not GGUF, or has another architecture.
    """
    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: truncated or not GGUF ({error}); fetch it again") from error

    def field(name: str) -> Any:
        return reader.fields[name].contents()

    if (architecture := field("general.architecture")) != "llama":
        raise InputError(
            f"{path}: architecture {architecture!r}, only 'llama' becomes Qwen2 without loss"
        )
    config = {
        "model_type": "qwen2",
        "hidden_size": int(field("llama.embedding_length")),
        "num_hidden_layers": int(field("llama.block_count")),
        "num_attention_heads": int(field("llama.attention.head_count")),
        "num_key_value_heads": int(field("llama.attention.head_count_kv")),
        "intermediate_size": int(field("llama.feed_forward_length")),
        "max_position_embeddings": int(field("llama.context_length")),
        "rope_theta": float(field("llama.rope.freq_base")),
        # The file has float32; rounding gives 1e-5 and not its 24-bit neighbour.
        "rms_norm_eps": float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
    }
    tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    return SmolLM2(
        text_config=config,
        tensors=_tensors(reader, config["num_attention_heads"], config["num_key_value_heads"]),
        vocabulary={token: i for i, token in enumerate(tokens)},
        merges=[tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")],
        special=[
            t for t, kind in zip(tokens, kinds, strict=True) if kind == gguf.TokenType.CONTROL
        ],
    )


def _tensors(reader: gguf.GGUFReader, heads: int, kv_heads: int) -> dict[str, np.ndarray]:
    rotated = {"attn_q": heads, "attn_k": kv_heads}
    tensors = {}
    for tensor in reader.tensors:
        array = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.name == "token_embd.weight":
            tensors["language_model.model.embed_tokens.weight"] = array
        elif tensor.name == "output_norm.weight":
            tensors["language_model.model.norm.weight"] = array
        else:
            _, layer, name, _ = tensor.name.split(".")  # blk.3.attn_q.weight
            array = unpermute(array, rotated[name]) if name in rotated else array
            prefix = f"language_model.model.layers.{layer}.{LAYER[name]}"
            tensors[f"{prefix}.weight"] = array
            if name in ("attn_q", "attn_k", "attn_v"):
                tensors[f"{prefix}.bias"] = np.zeros(len(array), np.float32)
    return tensors


def unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Separates the two halves of each head's rotary pairs, which GGUF interleaves.

    Rows of a head of four: a0 b0 a1 b1 -> a0 a1 b0 b1.
    """
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))
