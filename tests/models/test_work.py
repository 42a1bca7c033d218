import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sari_jax.audio.mel import log_mel
from sari_jax.models.audio_lm import Prompts, abstract_params, bind
from sari_jax.models.config import AudioLMConfig, DecoderConfig, EncoderConfig
from sari_jax.models.work import (
    chip,
    decoder_flops,
    encoder_flops,
    group_flops,
    projector_flops,
    step_flops,
)

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
    shared, repeated = group_flops(CONFIG, 100, [10] * 8), 8 * group_flops(CONFIG, 100, [10])
    assert shared < 0.3 * repeated


def test_attention_makes_long_clips_cost_more_than_their_length():
    assert encoder_flops(CONFIG, 200) > 2 * encoder_flops(CONFIG, 100)
    assert encoder_flops(CONFIG, 2) == pytest.approx(2 * encoder_flops(CONFIG, 1), rel=0.05)


def test_windows_make_it_linear():
    windowed = dataclasses.replace(CONFIG, encoder=dataclasses.replace(ENCODER, window=40))
    assert encoder_flops(windowed, 200) == 10 * encoder_flops(windowed, 20)
    assert encoder_flops(windowed, 20) == encoder_flops(CONFIG, 20)


def test_a_step_adds_its_passes_up():
    samples, prompts = np.array([[32_000, 0], [16_000, 16_000]]), np.array([60, 70])
    completions = np.array([[5, 3], [8, 1]])
    tower = encoder_flops(CONFIG, 100) + 2 * encoder_flops(CONFIG, 50)
    reading = group_flops(CONFIG, 60, [5, 3]) + group_flops(CONFIG, 70, [8, 1])

    def flops(**how):
        return step_flops(CONFIG, samples, prompts, completions, **how)

    placed = 2 * (50 + 25 + 25) * 16 * 8  # two frames make one feature
    all_of_it, most, least = (
        {"tower", "projector", "decoder"},
        {"projector", "decoder"},
        {"projector"},
    )
    assert flops(passes=1, learns=all_of_it) == pytest.approx(3 * (tower + placed + reading))
    assert flops(passes=3, learns=all_of_it) == pytest.approx(5 * (tower + placed + reading))
    twice = flops(passes=4, updates=2, learns=most)
    assert twice == pytest.approx(tower + 8 * (placed + reading))
    assert flops(passes=3, learns=most) == pytest.approx(tower + 5 * (placed + reading))
    assert flops(passes=3, learns=least) == pytest.approx(tower + 5 * placed + 4 * reading)
    # An adapter's gradient goes through its kernels, which have none.
    by_adapters = flops(passes=3, learns=set(), adapted={"tower", "decoder"})
    assert by_adapters == pytest.approx(4 * tower + 5 * placed + 4 * reading)


@pytest.mark.numerics
def test_as_xla_counts_a_model_of_one_layer():
    """A scan over one layer is counted whole. XLA also counts what is not a matrix product, and masked scores."""
    encoder = EncoderConfig(mel_bins=80, width=256, layers=1, heads=4, ffn=1024)
    decoder = DecoderConfig(2000, 256, layers=1, heads=4, kv_heads=2, head_dim=64, ffn=512)
    config = AudioLMConfig(encoder, decoder, audio_token_id=1)
    p, g, t, samples = 100, 4, 33, 48_640
    sizes = [((1, p), "i"), ((1,), "i"), ((1, p, 2), "i"), ((1, 1, samples), "f"), ((1, 1), "i")]
    prompts = Prompts(*(jnp.zeros(shape, f"{kind}4") for shape, kind in sizes))
    ids = jnp.zeros((1, g, t), jnp.int32)

    features = jnp.zeros((1, 1, 76, 256))

    def count(f, *inputs):
        return jax.jit(f).lower(*inputs).compile().cost_analysis()["flops"]

    def logits(params, features):
        model = bind(config, params)
        return model.decoder.logits(model.hidden(prompts, ids, features))

    def encode(params, waveforms):
        return bind(config, params).encode(prompts.replace(waveforms=waveforms))

    def mel(waveforms):  # no part of the model's work
        return log_mel(waveforms[0], prompts.samples[0], 80, 480_000)

    params, waveforms = abstract_params(config), prompts.waveforms
    counted = count(logits, params, features) + count(encode, params, waveforms)
    counted -= count(mel, waveforms)
    seen = p * p + g * (t - 1) * (p + t - 1)  # the first token is predicted by the prompt
    formula = decoder_flops(config, p + g * (t - 1), seen, g * t)
    formula += encoder_flops(config, 152) + projector_flops(config, 152)
    assert counted == pytest.approx(formula, rel=0.05)


def test_chips_by_the_names_that_jax_gives_them():
    assert chip("TPU v5e") == chip("TPU v5 lite") == (197e12, 0.81e12)
    assert chip("TPU v6e") == chip("TPU v6 lite") == (918e12, 1.6e12)
    assert chip("TPU v5p") == chip("TPU v5") == (459e12, 2.8e12)
    assert chip("NVIDIA H100 80GB HBM3") == (989e12, 3.35e12)
    assert chip("cpu") is chip("NVIDIA H100 PCIe") is None
