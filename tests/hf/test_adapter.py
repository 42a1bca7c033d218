"""What peft makes of an exported adapter, and transformers of the same adapter merged: our own logits."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

from sari_jax.errors import InputError
from sari_jax.hf.adapter import export_adapter, module_name
from sari_jax.hf.config import read_config
from sari_jax.hf.export import export
from sari_jax.hf.families import FAMILIES
from sari_jax.hf.load import load_params
from sari_jax.hf.names import tensor_rules
from sari_jax.models.audio_lm import bind
from sari_jax.models.config import Adapter
from sari_jax.models.lora import is_adapter
from sari_jax.train.optimizer import merge, partition

ADAPTER = Adapter(
    3, alpha=5.0, targets=("decoder/layers/*_proj", "tower/layers/[qv]_proj", "projector")
)
KINDS = {
    "multi_head_80": ADAPTER,
    "omni": dataclasses.replace(ADAPTER, rslora=True),
    "omni_thinker_tied": Adapter(2, targets=("decoder/layers/[qkvo]_proj",)),
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, marks=() if kind == "omni" else pytest.mark.numerics) for kind in KINDS
    ],
)
def adapted(request, tmp_path_factory):
    model = tiny.make(tmp_path_factory.mktemp("models") / request.param, tiny.SIZES[request.param])
    return tiny.adapted(model, KINDS[request.param])


def factors(model):
    trainable, _ = partition(model.params, ("*/lora_[ab]",))
    return merge(trainable, {})


@functools.partial(jax.jit, static_argnums=0)
def compute(config, params, prompts):
    return bind(config, params).prompt_logits(prompts)


def logits(config, params):
    """[tokens of all prompts, V]."""
    questions = tiny.ragged()
    found = compute(config, params, tiny.prompts(questions))
    rows = zip(np.asarray(found), questions, strict=True)
    return np.concatenate([row[: len(question.tokens)] for row, question in rows])


@pytest.mark.numerics
def test_merged_it_is_the_same_model(adapted, tmp_path):
    """Where only the factors were trained and their kernels come from the source, and where all is given."""
    export(factors(adapted), adapted.config, adapted.directory, tmp_path / "out")
    config = read_config(tmp_path / "out")
    merged = load_params(tmp_path / "out", config)
    wanted = logits(adapted.config, adapted.params)
    largest = np.abs(wanted).max()
    np.testing.assert_allclose(logits(config, merged), wanted, rtol=0, atol=1e-5 * largest)
    before = load_params(adapted.directory, config)
    assert np.abs(logits(config, before) - wanted).max() > 0.01 * largest
    export(adapted.params, adapted.config, adapted.directory, tmp_path / "whole")
    for path, array in tiny.flatten(load_params(tmp_path / "whole", config)).items():
        np.testing.assert_array_equal(array, tiny.flatten(merged)[path], err_msg=path)


@pytest.mark.numerics
def test_peft_adds_it_and_transformers_reads_it_merged(adapted, theirs, tmp_path):
    peft = pytest.importorskip("peft", reason="about PEFT, which is not installed")
    import torch

    export(factors(adapted), adapted.config, adapted.directory, tmp_path / "merged")
    export_adapter(factors(adapted), adapted.config, adapted.directory, tmp_path / "adapter")
    family = adapted.sizes.family

    def read(directory):
        network = theirs.read(directory, family, torch.float64)
        if adapted.sizes.tied:
            network.lm_head.weight = network.get_input_embeddings().weight
        return network

    alone = peft.PeftModel.from_pretrained(
        read(adapted.directory), tmp_path / "adapter", autocast_adapter_dtype=False
    )
    found = {
        name: theirs.logits(adapted, tiny.ragged(), network.eval().double())
        for name, network in (("peft", alone), ("merged", read(tmp_path / "merged")))
    }
    wanted = logits(adapted.config, adapted.params)
    largest = np.abs(wanted).max()
    for name, array in found.items():
        np.testing.assert_allclose(array, wanted, rtol=0, atol=1e-5 * largest, err_msg=name)
    # peft itself saves under the same names.
    alone.save_pretrained(tmp_path / "again")
    ours, again = (
        load_file(tmp_path / folder / "adapter_model.safetensors")
        for folder in ("adapter", "again")
    )
    assert ours.keys() == again.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


@pytest.mark.numerics
def test_whole_modules_go_along(adapted, theirs, tmp_path):
    """Of every kind that there is: linear maps, norms and convolutions, alone and in layers."""
    peft = pytest.importorskip("peft", reason="about PEFT, which is not installed")
    import torch

    bare = {path: x for path, x in tiny.flatten(adapted.params).items() if not is_adapter(path)}
    model = tiny.adapted(dataclasses.replace(adapted, params=merge(bare, {})), Adapter(2))
    beside = (
        "projector/*",
        "decoder/norm/*",
        "decoder/layers/ffn_norm/*",
        "tower/norm/*",
        "tower/conv1/*",
    )
    trained, frozen = partition(model.params, ("decoder/*/lora_[ab]", *beside))
    moved = {path: array + 0.1 * ("lora" not in path) for path, array in trained.items()}
    export_adapter(merge(moved, {}), model.config, model.directory, tmp_path / "out")
    base = theirs.read(model.directory, model.sizes.family, torch.float64)
    if model.sizes.tied:
        base.lm_head.weight = base.get_input_embeddings().weight
    network = peft.PeftModel.from_pretrained(base, tmp_path / "out", autocast_adapter_dtype=False)
    found = theirs.logits(model, tiny.ragged(), network.eval().double())
    wanted = logits(model.config, merge(moved, frozen))
    largest = np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * largest)
    assert np.abs(logits(model.config, model.params) - wanted).max() > 0.01 * largest
    network.save_pretrained(tmp_path / "again")
    ours, again = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("out", "again")
    )
    assert ours.keys() == again.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_modules_are_called_alike_in_every_layout(family, one_tiny):
    """peft looks for the modules of transformers, whatever the checkpoint calls its tensors."""
    found = [
        [
            module_name(name, layout)
            for rule in tensor_rules(one_tiny.config, layout)
            for name in rule.names
        ]
        for layout in FAMILIES[family].layouts
    ]
    assert all(names == found[0] for names in found)
    assert "model.language_model.layers.1.self_attn.q_proj" in found[0]
    assert "model.audio_tower.conv1" in found[0]


def test_what_is_written(one_tiny, tmp_path):
    model = tiny.adapted(one_tiny, Adapter(2, targets=("decoder/layers/[qv]_proj", "projector")))
    export_adapter(factors(model), model.config, model.directory, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["use_rslora"]) == (2, 16.0, False)
    assert settings["base_model_name_or_path"] == str(model.directory)
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert len(tensors) == 2 * (2 * 2 + 1) and {x.dtype.name for x in tensors.values()} == {
        "float32"
    }
    name = "base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_A.weight"
    np.testing.assert_array_equal(
        tensors[name], model.params["decoder"]["layers"]["q_proj"]["lora_a"][1].T
    )


@pytest.mark.parametrize(
    ("targets", "beside"),
    [
        ("decoder/layers/*_proj", "projector/bias"),  # a part of a module
        ("projector", "projector/bias"),  # of one that has an adapter
        ("decoder/layers/*_proj", "decoder/embed/embedding"),  # which may be the head as well
    ],
)
def test_an_adapter_with_more_beside_it_is_not_torn_apart(targets, beside, one_tiny, tmp_path):
    model = tiny.adapted(one_tiny, Adapter(2, targets=(targets,)))
    trained, _ = partition(model.params, ("*/lora_[ab]", beside))
    with pytest.raises(InputError, match=f"trained {beside} beside its adapter.* merged"):
        export_adapter(merge(trained, {}), model.config, model.directory, tmp_path / "out")
    with pytest.raises(InputError, match="trained no adapter .* without --adapter"):
        export_adapter({}, one_tiny.config, one_tiny.directory, tmp_path / "out")
    assert not (tmp_path / "out").exists()
