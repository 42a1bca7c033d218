import json

import pytest
import tiny

from sari_jax.errors import InputError
from sari_jax.hf.config import read_config
from sari_jax.models.config import DecoderConfig, EncoderConfig


@pytest.fixture
def changed(one_tiny, tmp_path):
    """A function that writes the tiny model's config.json with changes and reads it."""

    def read(**changes):
        raw = json.loads((one_tiny.directory / "config.json").read_text())
        for key, value in changes.items():
            raw[key] = raw[key] | value if isinstance(value, dict) else value
        (tmp_path / "config.json").write_text(json.dumps(raw))
        return read_config(tmp_path)

    return read


def test_every_size(one_tiny):
    config = read_config(one_tiny.directory, dtype="bfloat16", remat="layer")
    assert config.encoder == EncoderConfig(mel_bins=80, width=24, layers=2, heads=3, ffn=48)
    assert config.decoder == DecoderConfig(
        vocabulary=tiny.VOCABULARY, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, ffn=48
    )
    assert config.audio_token_id == tiny.AUDIO_ID
    assert config.dtype == "bfloat16" and config.remat == "layer"
    assert hash(config) == hash(read_config(one_tiny.directory, dtype="bfloat16", remat="layer"))


def test_settings_that_change_the_function(changed):
    decoder = changed(
        tie_word_embeddings=True,
        text_config={
            "rope_parameters": {"rope_theta": 123.0, "rope_type": "default"},
            "rms_norm_eps": 1e-5,
        },
    ).decoder
    assert (decoder.tied, decoder.rope_theta, decoder.norm_eps) == (True, 123.0, 1e-5)


def test_what_a_hub_file_leaves_out_is_transformers_own(tmp_path):
    """Qwen2-Audio's config.json on the hub names little of its text part."""
    raw = {"model_type": "qwen2_audio", "text_config": {"model_type": "qwen2", "rope_theta": 5e5}}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = read_config(tmp_path)
    assert config.encoder == EncoderConfig(mel_bins=128, width=1280, layers=32, heads=20, ffn=5120)
    assert config.decoder.rope_theta == 5e5 and not config.decoder.tied
    assert (config.decoder.layers, config.decoder.heads, config.decoder.head_dim) == (32, 32, 128)
    assert config.audio_token_id == 151646


def test_no_config(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(
            InputError, match=f"{path}: no config.json; --model names a Hugging Face"
        ):
            read_config(path)


@pytest.mark.parametrize(
    "text", ["", "{", "not json", "[" * 100_000], ids=["empty", "cut", "words", "deep"]
)
def test_broken(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(
        InputError, match="config.json: not JSON .*; fetch the file again"
    ) as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[]", "3", "null", '"x"', '{"model_type": []}', '{"model_type": {}}']
)
def test_json_but_no_settings(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match="config.json"):
        read_config(tmp_path)


def test_unknown_families(changed):
    with pytest.raises(InputError, match="model_type 'llama' is not supported; known: qwen2_audio"):
        changed(model_type="llama")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (dict(audio_config={"activation_function": "relu"}), "activations must be gelu"),
        (dict(text_config={"hidden_act": "gelu"}), "activations must be gelu"),
        (dict(text_config={"use_sliding_window": True}), "sliding windows"),
        (
            dict(
                text_config={
                    "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
                }
            ),
            "scaled rotary positions",
        ),
    ],
)
def test_what_the_networks_do_not_have(changes, told, changed):
    with pytest.raises(InputError, match=told):
        changed(**changes)


@pytest.mark.parametrize(
    "changes", [dict(text_config={"hidden_size": "wide"}), dict(audio_config=3)]
)
def test_values_that_make_no_config(changes, changed):
    with pytest.raises(
        InputError, match="config.json: not a Qwen2-Audio config .*fetch it again"
    ) as caught:
        changed(**changes)
    assert "\n" not in str(caught.value)


def test_the_towers_scale_is_read_by_nobody(changed, one_tiny):
    """transformers keeps `scale_embedding` from Whisper and never applies it."""
    assert changed(audio_config={"scale_embedding": True}) == read_config(one_tiny.directory)
