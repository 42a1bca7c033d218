"""config.json -> the network's frozen config, one function per model family.

transformers' own config classes fill in what a hub file leaves out, so that the defaults are theirs.
"""

import json
from collections.abc import Callable
from pathlib import Path

from sari_jax.errors import InputError
from sari_jax.models.config import AudioLMConfig, DecoderConfig, EncoderConfig


def read_config(
    model_dir: Path | str, *, dtype: str = "float32", remat: bool = False
) -> AudioLMConfig:
    """The config of a Hugging Face directory.

    Raises:
        InputError: no or broken config.json, a family that is not supported, a feature it needs that
            the networks here do not have.
    """
    path = Path(model_dir) / "config.json"
    if not path.is_file():
        raise InputError(
            f"{model_dir}: no config.json; --model names a Hugging Face model directory"
        )
    try:
        raw = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); fetch the file again") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path}: not a JSON object; fetch the file again")
    family = raw.get("model_type")
    if family not in FAMILIES:
        raise InputError(
            f"{path}: model_type {family!r} is not supported; known: {', '.join(FAMILIES)}"
        )
    return FAMILIES[family](raw, path, dtype, remat)


def _qwen2_audio(raw: dict, path: Path, dtype: str, remat: bool) -> AudioLMConfig:
    from transformers import Qwen2AudioConfig

    try:
        full = Qwen2AudioConfig(**raw)
    except Exception as error:  # transformers raises several kinds, all meaning a broken file
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a Qwen2-Audio config ({reason}); fetch it again") from error
    audio, text = full.audio_config, full.text_config
    if audio.activation_function != "gelu" or text.hidden_act != "silu":
        raise InputError(f"{path}: activations must be gelu (tower) and silu (decoder)")
    if text.use_sliding_window or text.rope_parameters.get("rope_type", "default") != "default":
        raise InputError(f"{path}: sliding windows and scaled rotary positions are not supported")
    encoder = EncoderConfig(
        mel_bins=audio.num_mel_bins,
        width=audio.d_model,
        layers=audio.encoder_layers,
        heads=audio.encoder_attention_heads,
        ffn=audio.encoder_ffn_dim,
        max_frames=audio.max_source_positions,
    )
    decoder = DecoderConfig(
        vocabulary=text.vocab_size,
        width=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        ffn=text.intermediate_size,
        rope_theta=float(text.rope_parameters["rope_theta"]),
        norm_eps=text.rms_norm_eps,
        tied=bool(raw.get("tie_word_embeddings", text.tie_word_embeddings)),
    )
    return AudioLMConfig(encoder, decoder, full.audio_token_index, dtype, remat)


FAMILIES: dict[str, Callable[[dict, Path, str, bool], AudioLMConfig]] = {
    "qwen2_audio": _qwen2_audio
}
