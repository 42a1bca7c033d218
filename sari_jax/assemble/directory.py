"""The models `nano` and `smol`: Whisper-tiny's real encoder with a decoder, as Qwen2-Audio directories."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.serialization import split_state_dict_into_shards_factory
from safetensors.numpy import save
from tokenizers import Tokenizer

from sari_jax import assets
from sari_jax.assemble import nano, tokenizer
from sari_jax.assemble.projector import aligned_projector, random_projector, tower_features
from sari_jax.assemble.whisper import encoder_tensors
from sari_jax.atomic import new_directory
from sari_jax.corpus.sources import starter
from sari_jax.data.records import Record
from sari_jax.data.styles import STYLES, Style, question_text
from sari_jax.errors import InputError, require

AUDIO_CONFIG = {
    "model_type": "qwen2_audio_encoder",
    "num_mel_bins": 80,
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "max_source_positions": 1500,
    "activation_function": "gelu",
    "scale_embedding": False,
}
PREPROCESSOR_CONFIG = {
    "chunk_length": 30,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": AUDIO_CONFIG["num_mel_bins"],
    "hop_length": 160,
    "n_fft": 400,
    "n_samples": 480_000,
    "nb_max_frames": 3000,
    "padding_side": "right",
    "padding_value": 0.0,
    "processor_class": "Qwen2AudioProcessor",
    "return_attention_mask": True,
    "sampling_rate": 16_000,
}
SYSTEM = r"{%- if loop.first and message['role'] != 'system' -%}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif -%}"  # noqa: E501
TEMPLATE = r"""{%- set audio = namespace(count=0) -%}
{%- for message in messages -%}
SYSTEM
{{- '<|im_start|>' + message['role'] + '\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'audio' or 'audio' in part or 'audio_url' in part -%}
{%- set audio.count = audio.count + 1 -%}
{{- 'Audio ' ~ audio.count ~ ': <|audio_bos|><|AUDIO|><|audio_eos|>\n' -}}
{%- else -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- endif -%}
"""
# The vocabulary is padded to a multiple of this, so that it divides evenly among devices.
ROWS = 64
EMBEDDING = "language_model.model.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"
Licences = list[tuple[str, str, str]]  # part, origin, licence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Language:
    """The language half of a model: decoder, tokenizer and chat template.

    Attributes:
        text_config: the decoder's part of config.json, without the vocabulary's size.
        tensors: the decoder's tensors, with as many embedding rows as `rows` returns.
        tokenizer_class: the class with which transformers opens the tokenizer.
        template: the chat template.
    """

    text_config: dict[str, Any]
    tensors: dict[str, np.ndarray]
    tokenizer: Tokenizer
    tokenizer_class: str
    template: str
    licences: Licences


def assemble(
    name: str,
    out: Path | str,
    *,
    seed: int = 0,
    size: nano.NanoSize = nano.NanoSize(),
    max_shard_bytes: int = 5 * 10**9,
    captioned: Sequence[Record] = (),
) -> None:
    """Writes a complete Qwen2-Audio directory: config, safetensors, tokenizer, processor, template, licences.

    The same arguments give the same bytes.

    Args:
        name: nano (a decoder from scratch) or smol (SmolLM2-135M).
        seed: the seed of all new weights: the projector, nano's decoder, smol's added embedding rows.
        size: the sizes of nano's decoder.
        max_shard_bytes: larger weights are divided among several files with an index.
        captioned: records with structured chains; the projector is fitted to their audio and captions. Without them it
            is random.

    Raises:
        InputError: the name is unknown, a package cannot be fetched, or `out` cannot be written.
    """
    if name not in ("nano", "smol"):
        raise InputError(f"model {name!r} is unknown; known: nano, smol")
    rng = np.random.Generator(np.random.Philox(seed))
    with new_directory(Path(out)) as aside:
        language = _nano(size, rng) if name == "nano" else _smol(rng)
        encoder = encoder_tensors(assets.fetch("whisper-tiny.en") / "model.bin")
        width = language.text_config["hidden_size"]
        audio_width = AUDIO_CONFIG["d_model"]
        tensors = encoder | random_projector(audio_width, width, rng) | language.tensors
        # The head is tied to the embedding, but transformers' Qwen2-Audio never ties: without a head it would draw one.
        tensors[HEAD] = tensors[EMBEDDING]
        _write_configs(language, aside)
        _write_weights(tensors, aside, max_shard_bytes)
        tokenizer.write_tokenizer(
            language.tokenizer, aside, tokenizer_class=language.tokenizer_class
        )
        (aside / "chat_template.jinja").write_text(language.template)
        if captioned:
            embeddings = tensors[EMBEDDING]
            captions = [record.chain_structured["caption"] for record in captioned]
            token_ids = [language.tokenizer.encode(f" {caption}").ids for caption in captions]
            means = np.stack([embeddings[ids].mean(0) for ids in token_ids])
            features = tower_features(aside, captioned)
            tensors |= aligned_projector(features, means, float(embeddings.std()))
            _write_weights(tensors, aside, max_shard_bytes)
        (aside / "LICENCES.md").write_text(_licences(language.licences))


def training_texts() -> list[str]:
    """Returns the texts for nano's tokenizer: the corpus's, the styles' instructions and the template's words."""
    instructions = [question_text("", ("",), style) for style in STYLES.values()]
    return [
        *starter.texts(),
        *instructions,
        "system\nuser\nassistant\nAudio 1: Audio 2: Audio 3: Audio 4:",
    ]


def _nano(size: nano.NanoSize, rng: np.random.Generator) -> Language:
    tags = dict.fromkeys(tag for style in STYLES.values() for tag in _tags(style))
    small = tokenizer.nano_tokenizer(training_texts(), list(tags), size.tokens)
    return Language(
        text_config=nano.text_config(size),
        tensors=nano.decoder_tensors(size, rows(small), rng),
        tokenizer=small,
        tokenizer_class="Qwen2Tokenizer",
        template=TEMPLATE.replace("SYSTEM\n", ""),
        licences=[("decoder, tokenizer", "made by sari model assemble", "Apache-2.0")],
    )


def _smol(rng: np.random.Generator) -> Language:
    require("sari model assemble smol", "corpus", "gguf")
    from sari_jax.assemble.smollm2 import read_smollm2

    (path,) = assets.fetch("smollm2-135m").glob("*.gguf")
    source = read_smollm2(path)
    extended = tokenizer.smollm2_tokenizer(source.vocabulary, source.merges, source.special)
    old = source.tensors[EMBEDDING]
    # New tokens start as the average embedding with a little noise, so that they differ.
    new = old.mean(axis=0) + nano.normal(
        rng, (rows(extended) - len(old), old.shape[1]), 0.1 * float(old.std())
    )
    return Language(
        text_config=source.text_config,
        tensors=source.tensors | {EMBEDDING: np.concatenate([old, new])},
        tokenizer=extended,
        tokenizer_class="PreTrainedTokenizerFast",
        template=TEMPLATE.replace("SYSTEM\n", SYSTEM + "\n"),
        licences=[_licence("decoder, tokenizer: SmolLM2-135M-Instruct", "smollm2-135m")],
    )


def rows(tokenizer: Tokenizer) -> int:
    """Returns the number of embedding rows: one for each token, padded to a multiple of ROWS."""
    return -(-tokenizer.get_vocab_size() // ROWS) * ROWS


def _tags(style: Style) -> list[str]:
    names = [style.think_tag, *(tag for _, tag in style.section_tags), style.answer_tag]
    return [mark for name in names if name for mark in (f"<{name}>", f"</{name}>")]


def _write_weights(tensors: dict[str, np.ndarray], out: Path, max_shard_bytes: int) -> None:
    split = split_state_dict_into_shards_factory(
        tensors,
        get_storage_size=lambda tensor: tensor.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_bytes,
    )
    for file, names in split.filename_to_tensors.items():
        # save_file is not used, as only the owner may read its files.
        (out / file).write_bytes(
            save({name: tensors[name] for name in names}, metadata={"format": "pt"})
        )
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        _write(out / "model.safetensors.index.json", index)


def _write_configs(language: Language, out: Path) -> None:
    ids = {
        token: language.tokenizer.token_to_id(token) for token in tokenizer.CHAT + tokenizer.AUDIO
    }
    text = language.text_config | {
        "hidden_act": "silu",
        "use_sliding_window": False,
        "vocab_size": rows(language.tokenizer),
        "tie_word_embeddings": True,
    }
    config = {
        "architectures": ["Qwen2AudioForConditionalGeneration"],
        "model_type": "qwen2_audio",
        "audio_config": AUDIO_CONFIG,
        "text_config": text,
        "audio_token_index": ids["<|AUDIO|>"],
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    generation = {
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
        "pad_token_id": ids["<|endoftext|>"],
    }
    _write(out / "config.json", config)
    _write(out / "generation_config.json", generation)
    _write(out / "preprocessor_config.json", PREPROCESSOR_CONFIG)


def _licence(part: str, asset: str) -> tuple[str, str, str]:
    package = assets.ASSETS[asset]
    return part, f"{package.package} {package.version} ({package.registry})", package.licence


def _licences(language: Licences) -> str:
    parts = [_licence("encoder: Whisper-tiny.en", "whisper-tiny.en"), *language]
    parts += [("projector", "made by sari model assemble", "Apache-2.0")]
    table = "".join(f"| {part} | {origin} | {licence} |\n" for part, origin, licence in parts)
    return f"# What this checkpoint is made of\n\n| part | from | licence |\n|---|---|---|\n{table}"


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
