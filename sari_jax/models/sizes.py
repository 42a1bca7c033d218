"""The sizes of the real models, as in their config.json on the hub, for uses that need no weights."""

import dataclasses

from sari_jax.models.config import AudioLMConfig, DecoderConfig, EncoderConfig

WHISPER_LARGE = EncoderConfig(mel_bins=128, width=1280, layers=32, heads=20, ffn=5120)
OMNI_TOWER = dataclasses.replace(WHISPER_LARGE, seconds=300, window=200, sinusoids=True)
SIZES = {
    "qwen2_audio_7b": AudioLMConfig(
        encoder=WHISPER_LARGE,
        decoder=DecoderConfig(
            vocabulary=156_032,
            width=4096,
            layers=32,
            heads=32,
            kv_heads=32,
            head_dim=128,
            ffn=11_008,
        ),
        audio_token_id=151_646,
    ),
    "qwen2_5_omni_3b": AudioLMConfig(
        encoder=OMNI_TOWER,
        decoder=DecoderConfig(
            vocabulary=151_936,
            width=2048,
            layers=36,
            heads=16,
            kv_heads=2,
            head_dim=128,
            ffn=11_008,
            rope_theta=1e6,
        ),
        audio_token_id=151_646,
    ),
    "qwen2_5_omni_7b": AudioLMConfig(
        encoder=OMNI_TOWER,
        decoder=DecoderConfig(
            vocabulary=152_064,
            width=3584,
            layers=28,
            heads=28,
            kv_heads=4,
            head_dim=128,
            ffn=18_944,
            rope_theta=1e6,
        ),
        audio_token_id=151_646,
    ),
}
