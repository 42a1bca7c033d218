"""What the family promises about its positions and its layouts; values are compared in models/test_audio_lm.py."""

import json
import shutil

import numpy as np
import pytest
import tiny

from sari_jax.errors import InputError
from sari_jax.hf.config import read_config


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "omni"
    return tiny.make(directory, tiny.Sizes(family="qwen2_5_omni", rope_theta=700.0))


def test_positions_of_sound_and_text_count_tokens(whole, theirs):
    """transformers' three-part positions of several clips with text between are 0, 1, 2, ... in every part."""
    questions = tiny.ragged()
    inputs = theirs.inputs(whole.sizes, questions)
    positions, deltas = theirs.of(whole).get_rope_index(
        inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        audio_seqlens=inputs["feature_attention_mask"].sum(-1),
    )
    for row, question in enumerate(questions):
        size = len(question.tokens)
        np.testing.assert_array_equal(positions[:, row, :size], [np.arange(size)] * 3)
    assert not deltas.any()  # what is generated goes on counting


def test_config(whole):
    encoder, decoder = whole.config.encoder, whole.config.decoder
    assert (encoder.window, encoder.seconds, encoder.sinusoids, encoder.positions) == (
        whole.sizes.window, 300, True, whole.sizes.window // 2,
    )  # fmt: skip
    assert (decoder.rope_theta, decoder.tied) == (700.0, False)


def test_a_hub_file_of_seven_billion_parameters(tmp_path):
    """What it leaves out is transformers' own: Omni-7B's sizes are its defaults."""
    raw = {"model_type": "qwen2_5_omni", "thinker_config": {"text_config": {}, "audio_config": {}}}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = read_config(tmp_path)
    assert (config.encoder.layers, config.encoder.width, config.encoder.window) == (32, 1280, 200)
    assert (config.decoder.layers, config.decoder.width, config.decoder.kv_heads) == (28, 3584, 4)
    assert config.decoder.rope_theta == 1e6 and not config.decoder.tied
    assert config.audio_token_id == 151646


@pytest.mark.parametrize("part", [None, 3, {"audio_config": {"activation_function": "relu"}}])
def test_broken(part, whole, tmp_path):
    shutil.copytree(whole.directory, tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"thinker_config": part}))
    with pytest.raises(InputError, match="config.json: (not a Qwen2.5-Omni|activations)") as caught:
        read_config(tmp_path / "copy")
    assert "\n" not in str(caught.value)
