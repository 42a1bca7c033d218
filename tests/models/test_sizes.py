"""The known sizes are what transformers reads from the hub's config files: their defaults are those of 7B."""

import json

import pytest

from sari_jax.hf.config import read_config
from sari_jax.models.audio_lm import abstract_params
from sari_jax.models.sizes import SIZES

TEXT = {
    "qwen2_5_omni_3b": dict(
        vocab_size=151_936, hidden_size=2048, intermediate_size=11_008, num_hidden_layers=36,
        num_attention_heads=16, num_key_value_heads=2,
    ),
    "qwen2_5_omni_7b": {},
}  # fmt: skip


def test_sizes_of_qwen2_audio(tmp_path):
    raw = {
        "model_type": "qwen2_audio",
        "audio_token_index": 151_646,
        "text_config": {"model_type": "qwen2", "vocab_size": 156_032, "intermediate_size": 11_008},
    }
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert read_config(tmp_path) == SIZES["qwen2_audio_7b"]


@pytest.mark.parametrize("name", list(TEXT))
def test_sizes_of_omni(name, tmp_path):
    from transformers import Qwen2_5OmniThinkerConfig

    text = TEXT[name] | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    width = TEXT[name].get("hidden_size", 3584)
    raw = Qwen2_5OmniThinkerConfig(
        text_config=text, audio_config={"output_dim": width}, vision_start_token_id=151_652
    ).to_dict()
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert read_config(tmp_path) == SIZES[name]


@pytest.mark.parametrize(
    ("name", "billions"),
    [("qwen2_audio_7b", 8.4), ("qwen2_5_omni_3b", 4.0), ("qwen2_5_omni_7b", 8.3)],
)
def test_sizes_count_their_parameters(name, billions):
    import jax

    count = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(SIZES[name])))
    assert count / 1e9 == pytest.approx(billions, rel=0.02)
