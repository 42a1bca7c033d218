import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec as P
from safetensors.numpy import load_file, save_file

from sari_jax.errors import InputError
from sari_jax.hf.config import read_config
from sari_jax.hf.export import export
from sari_jax.hf.families.qwen2_audio import QWEN2_AUDIO
from sari_jax.hf.load import load_params
from sari_jax.hf.shards import SINGLE, Shards
from sari_jax.parallel.mesh import make_mesh

EMBED, TIED_HEAD = QWEN2_AUDIO.layouts[0].embedding, QWEN2_AUDIO.layouts[0].unembedding


def loaded(directory, **settings):
    return load_params(directory, read_config(directory), **settings)


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


def test_a_truncated_shard(copied, one_tiny):
    """Wherever it is cut: see test_shards."""
    shard = a_shard(copied / "sharded")
    shard.write_bytes(shard.read_bytes()[:-100])
    refused(copied / "sharded", f"{shard.name}: truncated or not safetensors .*; fetch it again")
    before = sorted(path.name for path in copied.iterdir())
    with pytest.raises(InputError, match="truncated or not safetensors"):
        export(one_tiny.params, one_tiny.config, copied / "sharded", copied / "out")
    assert sorted(path.name for path in copied.iterdir()) == before


def test_layers_of_unlike_dtypes_take_the_widest(copied, tmp_path):
    name = "audio_tower.layers.0.fc1.weight"
    edit(
        copied / "single",
        lambda tensors: tensors.update({name: tensors[name].astype(jnp.bfloat16)}),
    )
    params = loaded(copied / "single")
    assert params["tower"]["layers"]["up_proj"]["kernel"].dtype == jnp.float32
    export(params, read_config(copied / "single"), copied / "single", tmp_path / "out")
    assert (tmp_path / "out" / SINGLE).read_bytes() == (copied / "single" / SINGLE).read_bytes()


def test_a_tensor_of_another_shape(copied):
    def shorten(tensors):
        tensors[EMBED] = tensors[EMBED][:-1].copy()

    edit(copied / "single", shorten)
    refused(
        copied / "single",
        r"embed_tokens.weight has shape \(207, 32\) .*config.json implies \(208, 32\)",
    )


def test_layers_of_unlike_shapes(copied):
    name = "audio_tower.layers.1.fc1.weight"

    def shorten(tensors):
        tensors[name] = tensors[name][:-1].copy()

    edit(copied / "single", shorten)
    refused(
        copied / "single",
        r"audio_tower.layers.1.fc1.weight has shape \(47, 24\) .*implies \(48, 24\)",
    )


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


def test_tied_by_config_but_not_by_weights(kinds, tmp_path):
    shutil.copytree(kinds / "tied", tmp_path / "tied")
    edit(tmp_path / "tied", lambda tensors: tensors.update({TIED_HEAD: tensors[TIED_HEAD] + 1}))
    refused(
        tmp_path / "tied",
        "config.json ties the head .* differs from it; set tie_word_embeddings to false",
    )
    edit(tmp_path / "tied", lambda tensors: tensors.pop(TIED_HEAD))
    loaded(tmp_path / "tied")  # the head need not be stored


def test_a_tensor_that_is_not_finite(copied):
    def spoil(tensors):
        tensors["audio_tower.layers.1.fc1.bias"][3] = float("nan")
        tensors[EMBED][0, 0] = float("inf")

    edit(copied / "single", spoil)
    refused(copied / "single", r"(fc1.bias|embed_tokens.weight) holds NaN .*2 tensors in all")


def test_swapped_tensors(copied):
    """Of two shapes: the first few are named, with the file's own axes."""
    first, second = "layers.0.mlp.up_proj.weight", "layers.0.mlp.down_proj.weight"

    def swap(tensors):
        one, two = (f"language_model.model.{name}" for name in (first, second))
        tensors[one], tensors[two] = tensors[two], tensors[one]

    edit(copied / "single", swap)
    refused(
        copied / "single",
        rf"2 mis-shaped .*{second} has shape \(48, 32\) where config.json implies \(32, 48\)",
    )


def test_whole_numbers_are_no_weights(copied):
    edit(
        copied / "single", lambda tensors: tensors.update({EMBED: tensors[EMBED].astype(np.int32)})
    )
    refused(copied / "single", "1 of another kind .*embed_tokens.weight is I32")


@pytest.mark.numerics
def test_every_parameter_goes_straight_to_its_place(kinds):
    """Split over eight devices: the same values, where the table says."""
    mesh = make_mesh(fsdp=4, tensor=2)
    config = read_config(kinds / "sharded")
    whole = tiny.flatten(load_params(kinds / "sharded", config))
    split = load_params(kinds / "sharded", config, mesh=mesh)
    assert split["decoder"]["layers"]["up_proj"]["kernel"].sharding.spec == P(
        None, "fsdp", "tensor"
    )
    assert split["projector"]["bias"].sharding.device_set == set(mesh.devices.flat)
    for path, array in tiny.flatten(split).items():
        np.testing.assert_array_equal(array, whole[path], err_msg=path)


def test_a_device_reads_its_own_part_only(kinds, monkeypatch):
    mesh, read = make_mesh(fsdp=4, tensor=2), Shards.read
    elements: dict[str, int] = {}

    def counting(self, name, part=None):
        found = read(self, name, part)
        elements[name] = max(elements.get(name, 0), found.size)
        return found

    monkeypatch.setattr(Shards, "read", counting)
    load_params(kinds / "single", read_config(kinds / "single"), mesh=mesh)
    kernel = "language_model.model.layers.1.mlp.up_proj.weight"
    assert elements[kernel] == 32 * 48 // 8


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.numerics)])
def test_half_precision_keeps_its_kind(dtype, one_tiny, tmp_path):
    weights = tiny.weights(one_tiny.sizes)
    halves = {name: array.astype(jnp.dtype(dtype)) for name, array in weights.items()}
    tiny.save(halves, tmp_path / dtype, one_tiny.sizes)
    leaves = jax.tree.leaves(loaded(tmp_path / dtype))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(dtype)}
