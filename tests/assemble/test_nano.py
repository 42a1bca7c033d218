import numpy as np
import pytest
from transformers import Qwen2Config

from sari_jax.assemble.nano import NanoSize, decoder_tensors, normal, text_config

SMALL = NanoSize(width=32, layers=2, heads=4, kv_heads=2, ffn=48, rope_theta=5000.0)


def drawn(seed: int, size: NanoSize = SMALL) -> dict[str, np.ndarray]:
    return decoder_tensors(size, 96, np.random.Generator(np.random.Philox(seed)))


@pytest.fixture
def opened(theirs):
    """A function from a size to transformers' Qwen2 with what is drawn for it."""

    def make(size):
        import torch
        from transformers import Qwen2ForCausalLM

        config = Qwen2Config(**text_config(size), vocab_size=96, tie_word_embeddings=True)
        model = Qwen2ForCausalLM(config).eval()
        state = {
            name.removeprefix("language_model."): torch.tensor(array)
            for name, array in drawn(0, size).items()
        }
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
        model.load_state_dict(state, strict=True)
        return model

    return make


def test_fits_transformers_qwen2(opened):
    assert opened(SMALL).config.rope_parameters["rope_theta"] == 5000.0


@pytest.mark.parametrize("size", [SMALL, NanoSize()])
def test_nano_starts_unsure(size, opened):
    """Every token about equally likely: the loss begins near log(vocabulary)."""
    import torch

    tokens = torch.arange(96)[None]
    with torch.no_grad():
        loss = opened(size)(input_ids=tokens, labels=tokens).loss
    assert abs(float(loss) - np.log(96)) < 0.3


def test_seed_decides_nanos_decoder():
    first, again, other = drawn(0), drawn(0), drawn(1)
    for name, array in first.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, again[name])
        assert array.ndim == 1 or not np.array_equal(array, other[name])


def test_normal_draws_have_their_deviation():
    drawn = normal(np.random.default_rng(0), (500, 400), 0.3)
    assert drawn.dtype == np.float32 and drawn.std() == pytest.approx(0.3, rel=0.01)
