import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2AudioForConditionalGeneration

from sari_jax.errors import InputError
from sari_jax.hf.checkpoint import (
    EMBED,
    INDEX,
    SINGLE,
    TIED_HEAD,
    export,
    load_params,
    weight_map,
)
from sari_jax.hf.config import read_config


@pytest.fixture(scope="module")
def kinds(one_tiny, tmp_path_factory):
    """The same model as a single file, in shards, in bfloat16, and one that is tied."""
    root = tmp_path_factory.mktemp("kinds")
    theirs = tiny.random_model(one_tiny.sizes, 0)
    tiny.save(theirs, root / "single", tied=False)
    tiny.save(theirs, root / "sharded", tied=False, max_shard_size="60KB")
    tiny.save(theirs.to(torch.bfloat16), root / "bfloat16", tied=False, max_shard_size="40KB")
    tiny.save(tiny.random_model(tiny.SIZES["grouped_80_tied"], 0), root / "tied", tied=True)
    assert len(list((root / "sharded").glob("*.safetensors"))) > 2
    return root


@pytest.fixture
def copied(kinds, tmp_path):
    """Two directories to spoil."""
    for kind in ("single", "sharded"):
        shutil.copytree(kinds / kind, tmp_path / kind)
    return tmp_path


def loaded(directory, **settings):
    return load_params(directory, read_config(directory), **settings)


def contents(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.mark.parametrize("kind", ["single", "sharded", "bfloat16", "tied"])
def test_in_and_out_bit_for_bit(kind, kinds, tmp_path):
    """Every file, byte by byte: shards, index, config."""
    source, out = kinds / kind, tmp_path / "out"
    export(loaded(source), read_config(source), source, out)
    tensors = {path.name: load_file(path) for path in source.glob("*.safetensors")}
    for file, expected in tensors.items():
        found = load_file(out / file)
        assert set(found) == set(expected)
        for name, tensor in expected.items():
            assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    assert contents(out) == contents(source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_bfloat16_stays_bfloat16(kinds, tmp_path):
    params = loaded(kinds / "bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    wide = loaded(kinds / "bfloat16", dtype="float32")
    assert {leaf.dtype for leaf in jax.tree.leaves(wide)} == {jnp.dtype("float32")}
    export(wide, read_config(kinds / "bfloat16"), kinds / "bfloat16", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(kinds / "bfloat16")


@pytest.mark.parametrize("kind", ["single", "sharded", "bfloat16", "tied"])
def test_an_export_opens_in_transformers(kind, kinds, tmp_path):
    """With what was trained in it, under the names that transformers looks for."""
    config, params = read_config(kinds / kind), loaded(kinds / kind)
    params["projector"]["bias"] = params["projector"]["bias"] + 1
    params["decoder"]["embed"]["embedding"] = params["decoder"]["embed"]["embedding"] * 2
    export(params, config, kinds / kind, tmp_path / "out")
    model, told = Qwen2AudioForConditionalGeneration.from_pretrained(
        tmp_path / "out", output_loading_info=True, dtype="auto"
    )
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    found = {
        name: parameter.detach().float().numpy() for name, parameter in model.named_parameters()
    }
    for path, array in tiny.theirs_as_ours(found, config).items():
        np.testing.assert_array_equal(
            array, np.asarray(tiny.flatten(params)[path], np.float32), err_msg=path
        )
    if kind == "tied":  # the second copy of the head follows the embedding
        np.testing.assert_array_equal(
            found["lm_head.weight"], found["model.language_model.embed_tokens.weight"]
        )


def test_whoever_may_read_the_source_may_read_the_export(copied, tmp_path):
    source = copied / "sharded"
    for path in source.glob("*.safetensors"):
        path.chmod(0o640)
    export(loaded(source), read_config(source), source, tmp_path / "out")
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert shards and {path.stat().st_mode & 0o777 for path in shards} == {0o640}


def test_what_is_not_ours_is_carried_through(copied, tmp_path):
    """Tokenizer, template, folders aside; pickles are left behind."""
    source = copied / "single"
    (source / "tokenizer.json").write_text("{}")
    (source / "optimizer.pt").write_bytes(b"x")
    (source / "folder").mkdir()
    export(loaded(source), read_config(source), source, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in source.iterdir()} - {"optimizer.pt", "folder"}


# Directories that cannot be used.


def refused(directory, told):
    """In one line, and nothing new stands beside the directory afterwards."""
    before = sorted(path.name for path in directory.parent.iterdir())
    with pytest.raises(InputError, match=told) as caught:
        loaded(directory)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in directory.parent.iterdir()) == before


def edit(directory, change):
    tensors = load_file(directory / SINGLE)
    change(tensors)
    save_file(tensors, directory / SINGLE, metadata={"format": "pt"})


def a_shard(directory):
    return sorted(directory.glob("model-*.safetensors"))[1]


def test_a_missing_shard(copied, one_tiny):
    shard = a_shard(copied / "sharded")
    shard.unlink()
    refused(copied / "sharded", rf"shard {shard.name} is missing \(1 in all\); fetch it again")
    with pytest.raises(InputError, match="is missing"):
        export(one_tiny.params, one_tiny.config, copied / "sharded", copied / "out")
    assert not (copied / "out").exists()


@pytest.mark.parametrize("size", [0, 7, 3000, -100])
def test_a_truncated_shard(size, copied, one_tiny):
    shard = a_shard(copied / "sharded")
    shard.write_bytes(shard.read_bytes()[:size])
    refused(copied / "sharded", f"{shard.name}: truncated or not safetensors .*; fetch it again")
    before = sorted(path.name for path in copied.iterdir())
    with pytest.raises(InputError, match="truncated or not safetensors"):
        export(one_tiny.params, one_tiny.config, copied / "sharded", copied / "out")
    assert sorted(path.name for path in copied.iterdir()) == before


def test_a_truncated_single_file(copied):
    (copied / "single" / SINGLE).write_bytes((copied / "single" / SINGLE).read_bytes()[:-1])
    refused(copied / "single", "model.safetensors: truncated or not safetensors")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_pickles_are_not_read(name, copied):
    (copied / "single" / SINGLE).rename(copied / "single" / name)
    refused(copied / "single", f"{name} is not safetensors.*save_pretrained")


def test_no_weights(copied):
    (copied / "single" / SINGLE).unlink()
    refused(copied / "single", "no model.safetensors and no model.safetensors.index.json")


def test_a_tensor_of_another_shape(copied):
    def shorten(tensors):
        tensors[EMBED] = tensors[EMBED][:-1].clone()

    edit(copied / "single", shorten)
    refused(
        copied / "single",
        r"embed_tokens.weight has shape \(207, 32\) .*config.json implies \(208, 32\)",
    )


def test_layers_of_unlike_shapes(copied):
    name = "audio_tower.layers.1.fc1.weight"

    def shorten(tensors):
        tensors[name] = tensors[name][:-1].clone()

    edit(copied / "single", shorten)
    refused(copied / "single", r"audio_tower.layers.1.fc1.weight has shape \(24, 47\)")


def test_a_missing_and_an_unexpected_tensor(copied):
    def rename(tensors):
        tensors["audio_tower.layers.0.fc1.wight"] = tensors.pop("audio_tower.layers.0.fc1.weight")

    edit(copied / "single", rename)
    refused(
        copied / "single",
        r"1 missing \(audio_tower.layers.0.fc1.weight\); 1 unexpected \(audio_tower.layers.0.fc1.wight\)",
    )


def test_more_layers_than_config_says(copied):
    path = copied / "single" / "config.json"
    raw = json.loads(path.read_text())
    raw["text_config"] |= {"num_hidden_layers": 1, "layer_types": ["full_attention"]}
    path.write_text(json.dumps(raw))
    refused(
        copied / "single",
        r"12 unexpected \(language_model.model.layers.1.input_layernorm.weight, .*, \.\.\.\)",
    )


@pytest.mark.parametrize(
    "outside", ["../single/model.safetensors", "/etc/passwd", "sub/model.safetensors"]
)
def test_an_index_that_points_outside(outside, copied):
    path = copied / "sharded" / INDEX
    index = json.loads(path.read_text())
    index["weight_map"][EMBED] = outside
    path.write_text(json.dumps(index))
    refused(copied / "sharded", "lies outside the directory")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}']
)
def test_a_broken_index(text, copied):
    (copied / "sharded" / INDEX).write_text(text)
    refused(copied / "sharded", "not a safetensors index; fetch it again")


def test_an_index_that_names_the_wrong_shard(copied):
    path = copied / "sharded" / INDEX
    index = json.loads(path.read_text())
    files = set(index["weight_map"].values())
    index["weight_map"][EMBED] = (files - {index["weight_map"][EMBED]}).pop()
    path.write_text(json.dumps(index))
    refused(copied / "sharded", f"no tensor {EMBED}; fetch it again")


def test_tied_by_config_but_not_by_weights(kinds, tmp_path):
    shutil.copytree(kinds / "tied", tmp_path / "tied")
    edit(tmp_path / "tied", lambda tensors: tensors.update({TIED_HEAD: tensors[TIED_HEAD] + 1}))
    refused(
        tmp_path / "tied",
        "config.json ties the head .* differs from it; set tie_word_embeddings to false",
    )
    edit(tmp_path / "tied", lambda tensors: tensors.pop(TIED_HEAD))
    loaded(tmp_path / "tied")  # the head need not be stored


def test_weight_map(kinds):
    assert set(weight_map(kinds / "single").values()) == {SINGLE}
    assert set(weight_map(kinds / "single")) == set(weight_map(kinds / "sharded"))


# Where an export goes.


def test_a_directory_with_something_in_it_is_left_alone(kinds, tmp_path):
    (tmp_path / "note").write_text("mine")
    for out in (tmp_path, tmp_path / "note"):
        with pytest.raises(
            InputError, match="exists and is not empty; name a new directory with --out"
        ):
            export(loaded(kinds / "single"), read_config(kinds / "single"), kinds / "single", out)
    assert [path.name for path in tmp_path.iterdir()] == ["note"]
