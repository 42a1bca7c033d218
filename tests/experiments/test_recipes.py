"""The `sari compile` lines in the docstrings of configs of real sizes work as they are written."""

import math

import pytest

from experiments.recipes import ROOT, recipes, table
from sari_jax.models.sizes import SIZES
from sari_jax.train.config import freeze
from sari_jax.train.flags import read_config_file

RECIPES = list(recipes())
SMALL = {"bench", "sft_nano", "grpo_nano", "sft_smol", "grpo_smol"}


def test_every_config_of_a_real_size_has_a_line():
    names = {path.stem for path in (ROOT / "configs").glob("*.py")}
    variants = {f":{model}{lora}" for model in SIZES for lora in ("", ",lora")}
    assert {name for name, _ in RECIPES} == (names - SMALL - {"sft", "grpo"}) | {
        f"{stage}{variant}" for stage in ("sft", "grpo") for variant in variants
    }
    assert len({tuple(words) for _, words in RECIPES}) == len(RECIPES)


@pytest.mark.parametrize(("name", "words"), RECIPES, ids=[" ".join(w[2:]) for _, w in RECIPES])
def test_a_line_is_of_its_own_config(name, words):
    file, colon, argument = name.partition(":")
    assert words[:4] == ["compile", "--config", f"configs/{file}.py{colon}{argument}", "--topology"]
    run = freeze(read_config_file(f"{ROOT}/{words[2]}", words[5:]))
    assert run.model.size
    chips = math.prod(map(int, words[4].split(":")[1].split("x")))
    assert run.batch_size // run.micro_batches % chips == 0, "a row for each chip, or several"


def test_the_table_names_the_program_that_needs_most():
    programs = {"decode": {"peak_hbm_gib": 12.345}, "update": {"peak_hbm_gib": 11.0}}
    result = {"programs": programs, "state_gib_per_chip": 4.0, "usable_gib_per_chip": 15.75}
    words = [
        "compile",
        "--config",
        "configs/a.py",
        "--topology",
        "v5e:2x2",
        "--config.batch_size=4",
    ]
    text = table([("a", words, result | {"fits": True}), ("a", words, result | {"fits": False})])
    assert "| `a` | v5e:2x2 batch_size=4 | 4.00 | 12.35 | 15.75 | decode | yes |" in text
    assert text.count("**no**") == 1
