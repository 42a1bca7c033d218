import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from transformers import Qwen2AudioEncoderConfig
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from sari_jax.models.config import EncoderConfig
from sari_jax.models.encoder import LOOKAHEAD, Encoder, frame_counts

CONFIG = EncoderConfig(mel_bins=80, width=16, layers=2, heads=2, ffn=32)


@pytest.mark.parametrize("samples", [321, 640, 641, 12_345, 48_000, 479_999, 480_000])
def test_frames_are_counted_as_transformers_counts_them(samples):
    import torch

    tower = Qwen2AudioEncoder(
        Qwen2AudioEncoderConfig(
            d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16
        )
    )
    mel = torch.tensor([-(-samples // 160)])
    inside, out = tower._get_feat_extract_output_lengths(mel)
    assert frame_counts(samples) == (int(inside), int(out))


@pytest.mark.parametrize("size", [640 * 26, 640 * 25 + LOOKAHEAD, 480_000])
def test_a_short_bucket_gives_what_thirty_seconds_give(size):
    encoder = Encoder(CONFIG, "float32", nnx.Rngs(0))
    length = 640 * 25
    rng = np.random.default_rng(0)
    clip = (0.1 * rng.standard_normal(length)).astype(np.float32)
    run = nnx.jit(lambda encoder, x, n: encoder(x, n))
    wanted, found = (
        run(encoder, np.pad(clip, (0, s - length))[None], np.array([length]))
        for s in (480_000, size)
    )
    count = frame_counts(length)[1]
    np.testing.assert_allclose(found[0, :count], wanted[0, :count], atol=1e-4)


def test_a_clip_does_not_hear_its_neighbours():
    encoder = Encoder(CONFIG, "float32", nnx.Rngs(0))
    waveforms = 0.1 * jax.random.normal(jax.random.key(0), (3, 32_000))
    lengths = jnp.array([16_000, 20_000, 0])
    waveforms = jnp.where(jnp.arange(32_000) < lengths[:, None], waveforms, 0.0)
    both = encoder(waveforms, lengths)
    alone = encoder(waveforms[:1], lengths[:1])
    count = frame_counts(16_000)[1]
    np.testing.assert_allclose(both[0, :count], alone[0, :count], atol=1e-5)
    assert bool(np.isfinite(both).all())
