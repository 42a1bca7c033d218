"""Qwen2.5-Omni's thinker for audio and text: an audio tower over windows of 2 s, and Qwen2's language model.

Its rotary positions have three parts: time, height and width. They differ only for images and video. For text and
audio, which has 25 tokens per second, all three count tokens one by one, so they equal plain rotary positions.
"""

from typing import Any

from sari_jax.hf.family import Family, Parts, decoder_config, encoder_config
from sari_jax.hf.names import Names

# The length of the feature extractor on the hub.
SECONDS = 300


def read_thinker(raw: dict[str, Any]) -> Parts:
    from transformers import Qwen2_5OmniThinkerConfig

    full = Qwen2_5OmniThinkerConfig(**raw)
    audio = full.audio_config
    encoder = encoder_config(audio, seconds=SECONDS, window=2 * audio.n_window, sinusoids=True)
    tied = bool(full.tie_word_embeddings)
    decoder = decoder_config(full.text_config, tied=tied, ropes=("default", "mrope"))
    return encoder, decoder, full.audio_token_index


def read_omni(raw: dict[str, Any]) -> Parts:
    return read_thinker(raw["thinker_config"])


def _names(prefix: str, decoder: str, head: str) -> Names:
    return Names(
        tower=f"{prefix}audio_tower",
        tower_norm=f"{prefix}audio_tower.ln_post",
        projector=f"{prefix}audio_tower.proj",
        decoder=f"{prefix}{decoder}",
        head=head,
    )


# A thinker that transformers saves alone keeps the prefix if it was loaded from the whole model. Names with
# `language_model` are transformers 5's module names: `state_dict()` and
# `save_pretrained(..., save_original_format=False)` use them.
LAYOUTS = (
    _names("thinker.", "model", "thinker.lm_head"),
    _names("thinker.model.", "language_model", "thinker.lm_head"),
    _names("model.", "language_model", "lm_head"),
    _names("", "model", "lm_head"),
)
REFERENCE = "Qwen2_5OmniThinkerForConditionalGeneration"
# The vision tower, an embedding that is never looked up, and buffers that are computed here.
UNUSED = tuple(
    pattern
    for names in LAYOUTS
    for pattern in (
        f"{names.tower.removesuffix('audio_tower')}visual.*",
        f"{names.tower}.audio_bos_eos_token.weight",
        f"{names.tower}.positional_embedding.positional_embedding",
        f"{names.tower}.embed_positions.weight",
        *names.rotary_buffers,
    )
)
# The talker's voices.
VOICES = ("spk_dict.pt",)
QWEN2_5_OMNI = Family(
    title="Qwen2.5-Omni",
    read=read_omni,
    layouts=LAYOUTS,
    reference=REFERENCE,
    carried=(*UNUSED, "talker.*", "token2wav.*"),
    carried_files=VOICES,
)
QWEN2_5_OMNI_THINKER = Family(
    title="Qwen2.5-Omni's thinker",
    read=read_thinker,
    layouts=LAYOUTS,
    reference=REFERENCE,
    carried=UNUSED,
    carried_files=VOICES,
)
