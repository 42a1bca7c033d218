"""Qwen2-Audio: Whisper's encoder over a whole clip of up to 30 s, a linear map, Qwen's language model."""

from typing import Any

from sari_jax.hf.family import Family, Parts, decoder_config, encoder_config
from sari_jax.hf.names import Names


def read(raw: dict[str, Any]) -> Parts:
    from transformers import Qwen2AudioConfig

    full = Qwen2AudioConfig(**raw)
    text = full.text_config
    encoder = encoder_config(
        full.audio_config, seconds=full.audio_config.max_source_positions // 50
    )
    tied = bool(raw.get("tie_word_embeddings", text.tie_word_embeddings))
    decoder = decoder_config(text, tied=tied, ropes=("default",))
    return encoder, decoder, full.audio_token_index


HUB = Names(
    tower="audio_tower",
    tower_norm="audio_tower.layer_norm",
    projector="multi_modal_projector.linear",
    decoder="language_model.model",
    head="language_model.lm_head",
)
# transformers 5's module names: `state_dict()` and `save_pretrained(..., save_original_format=False)` use them.
MODULES = Names(
    tower="model.audio_tower",
    tower_norm="model.audio_tower.layer_norm",
    projector="model.multi_modal_projector.linear",
    decoder="model.language_model",
    head="lm_head",
)
QWEN2_AUDIO = Family(
    title="Qwen2-Audio",
    read=read,
    layouts=(HUB, MODULES),
    reference="Qwen2AudioForConditionalGeneration",
    carried=(*HUB.rotary_buffers, *MODULES.rotary_buffers),
)
