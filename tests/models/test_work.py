import pytest

from sari_jax.models.config import AudioLMConfig, DecoderConfig, EncoderConfig
from sari_jax.models.work import decoder_flops, encoder_flops, group_flops

ENCODER = EncoderConfig(mel_bins=80, width=16, layers=2, heads=2, ffn=32)
DECODER = DecoderConfig(vocabulary=50, width=8, layers=3, heads=2, kv_heads=1, head_dim=4, ffn=12)
CONFIG = AudioLMConfig(ENCODER, DECODER, audio_token_id=1)


def test_a_token_costs_twice_its_matrices():
    matrices = 3 * (
        8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 12
    )  # q, k and v, o, three of the feed-forward part
    assert decoder_flops(CONFIG, 10, 0, 0) == 2 * 10 * matrices
    assert decoder_flops(CONFIG, 0, 0, 5) == 2 * 5 * 8 * 50
    assert decoder_flops(CONFIG, 0, 7, 0) == 3 * 7 * (2 * 2 * 8)  # scores and values, all heads


def test_a_group_costs_less_than_its_prompt_repeated():
    shared, repeated = group_flops(CONFIG, 100, 8, 10), 8 * group_flops(CONFIG, 100, 1, 10)
    assert shared < 0.3 * repeated


def test_attention_makes_long_clips_cost_more_than_their_length():
    assert encoder_flops(CONFIG, 200) > 2 * encoder_flops(CONFIG, 100)
    assert encoder_flops(CONFIG, 2) == pytest.approx(2 * encoder_flops(CONFIG, 1), rel=0.05)
