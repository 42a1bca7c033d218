import dataclasses

import pytest

from sari_jax.errors import InputError
from sari_jax.models.sizes import SIZES
from sari_jax.train.config import Run, freeze
from sari_jax.train.flags import read_config_file
from sari_jax.train.recipes import FOLDER, find_config, parse_variant
from sari_jax.train.workdir import flat

SHARED = {"model.dtype": "bfloat16", "model.remat": "layer"}
LORA = {
    "model.frozen_dtype": "bfloat16",
    "model.adapter.rank": 32,
    "model.adapter.alpha": 64.0,
}
SFT = SHARED | {"steps": 250, "optimizer.warmup_steps": 20, "optimizer.schedule": "cosine"}
SFT_LORA = LORA | {
    "micro_batches": 4,
    "model.adapter.dropout": 0.05,
    "optimizer.learning_rate": 1e-4,
}
GRPO = SHARED | {"stage": "grpo", "steps": 1000, "data.order": "easy_to_hard"}
GRPO_LORA = LORA | {"optimizer.learning_rate": 1e-5, "grpo.max_tokens": 256}
DECODE_TENSOR = {"qwen2_audio_7b": 8, "qwen2_5_omni_3b": 2, "qwen2_5_omni_7b": 4}
PROMPTS = {"qwen2_audio_7b": 4, "qwen2_5_omni_3b": 1, "qwen2_5_omni_7b": 4}


def differing(recipe: str) -> dict:
    """The settings of a recipe that are not defaults."""
    default = flat(dataclasses.asdict(Run()))
    settings = flat(dataclasses.asdict(freeze(read_config_file(recipe, []))))
    return {key: value for key, value in settings.items() if value != default[key]}


@pytest.mark.parametrize("model", SIZES)
def test_each_variant_has_its_settings(model):
    size = {"model.size": model}
    decode = {"mesh.decode_tensor": DECODE_TENSOR[model]}
    assert differing(f"sft:{model}") == SFT | size | decode | {"optimizer.learning_rate": 1e-5}
    assert differing(f"sft:{model},lora") == SFT | size | SFT_LORA
    reference = {"model.reference_dtype": "bfloat16"}
    assert differing(f"grpo:{model}") == GRPO | size | decode | reference
    prompts = {"batch_size": PROMPTS[model]}
    assert differing(f"grpo:{model},lora") == GRPO | size | GRPO_LORA | prompts


@pytest.mark.parametrize(
    ("config", "file", "argument"),
    [
        ("grpo:nano", "grpo_nano.py", ""),
        ("grpo_nano", "grpo_nano.py", ""),
        ("sft:smol", "sft_smol.py", ""),
        ("grpo_r1_aqa", "grpo_r1_aqa.py", ""),
        ("grpo:ke_omni_r", "grpo_ke_omni_r.py", ""),
        ("grpo:qwen2_audio_7b,lora", "grpo.py", "qwen2_audio_7b,lora"),
        ("sft", "sft.py", ""),
    ],
)
def test_a_recipe_is_found_by_name_from_any_folder(config, file, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(config) == (FOLDER / file, argument)


def test_a_file_is_found_by_path(tmp_path):
    path = tmp_path / "mine.py"
    path.touch()
    assert find_config(str(path)) == (path, "")
    assert find_config(f"{path}:a,b") == (path, "a,b")
    odd = tmp_path / "a:b.json"
    odd.touch()
    assert find_config(str(odd)) == (odd, "")


@pytest.mark.parametrize("config", ["grop:nano", "configs/none.py:nano", "../grpo:nano"])
def test_an_unknown_recipe_is_one_line_with_all_there_are(config):
    with pytest.raises(
        InputError, match="no such config file or recipe; .*, grpo, .*sft_smol$"
    ) as found:
        find_config(config)
    assert str(found.value).startswith(config.partition(":")[0])
    assert len(str(found.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("grpo", "grpo needs a model"),
        ("grpo:nanno", "grpo:nanno is unknown"),
        ("grpo:qwen2_audio_7b,lor", "grpo:qwen2_audio_7b,lor is unknown"),
        ("grpo:qwen2_audio_7b,", "grpo:qwen2_audio_7b, is unknown"),
        ("grpo:lora,qwen2_audio_7b", "grpo:lora,qwen2_audio_7b is unknown"),
    ],
)
def test_a_wrong_argument_is_one_line_with_all_there_are(config, problem):
    choices = "one of qwen2_audio_7b, qwen2_5_omni_3b, qwen2_5_omni_7b; or .*grpo:nano"
    with pytest.raises(InputError, match=f"^config: {problem}; choose .*{choices}") as found:
        read_config_file(config, [])
    assert len(str(found.value).splitlines()) == 1


def test_a_variant_is_a_model_and_perhaps_adapters():
    assert parse_variant("b", "sft", ("a", "b")) == ("b", False)
    assert parse_variant("a,lora", "sft", ("a", "b")) == ("a", True)
