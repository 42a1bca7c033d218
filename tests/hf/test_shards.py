import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sari_jax.errors import InputError
from sari_jax.hf.families.qwen2_audio import QWEN2_AUDIO
from sari_jax.hf.shards import INDEX, SINGLE, Shards, weight_map

EMBED = QWEN2_AUDIO.layouts[0].embedding


def refused(directory, told):
    """In one line."""
    with pytest.raises(InputError, match=told) as caught:
        Shards(directory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_pickles_are_not_read(name, copied):
    (copied / "single" / SINGLE).rename(copied / "single" / name)
    refused(copied / "single", f"{name} is not safetensors.*save_pretrained")


def test_no_weights(copied):
    (copied / "single" / SINGLE).unlink()
    refused(copied / "single", "no model.safetensors and no model.safetensors.index.json")


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


def test_an_index_of_nothing(copied):
    (copied / "sharded" / INDEX).write_text('{"weight_map": {}}')
    refused(copied / "sharded", "names no tensor; fetch it again")


def test_a_single_file_beside_an_index(copied):
    """transformers would take the one, and who wrote the index meant the other."""
    shutil.copy(copied / "single" / SINGLE, copied / "sharded")
    refused(copied / "sharded", "only one of them can be the model; remove the other")


def test_a_tensor_in_two_shards(copied):
    first, second = sorted((copied / "sharded").glob("*.safetensors"))[:2]
    save_file(load_file(second) | load_file(first), second)
    refused(copied / "sharded", f"{second.name}: holds .*, and {first.name} holds it too")


def test_weight_map(kinds):
    assert set(weight_map(kinds / "single").values()) == {SINGLE}
    assert set(weight_map(kinds / "single")) == set(weight_map(kinds / "sharded"))


def test_an_index_that_names_the_wrong_shard(copied):
    path = copied / "sharded" / INDEX
    index = json.loads(path.read_text())
    files = set(index["weight_map"].values())
    index["weight_map"][EMBED] = (files - {index["weight_map"][EMBED]}).pop()
    path.write_text(json.dumps(index))
    refused(copied / "sharded", f"no tensor {EMBED}; fetch it again")


@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_truncated_anywhere(kind, copied):
    """In the length and the text of its header, among its tensors, and by one byte."""
    path = sorted((copied / kind).glob("*.safetensors"))[0]
    whole = path.read_bytes()
    for size in (0, 7, 8, 900, *np.linspace(3000, len(whole) - 1, 8).astype(int)):
        path.write_bytes(whole[:size])
        refused(copied / kind, f"{path.name}: truncated or not safetensors")


@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_a_link_out_of_the_directory(kind, copied):
    file = sorted((copied / kind).glob("*.safetensors"))[0]
    file.rename(copied / "elsewhere.safetensors")
    file.symlink_to(copied / "elsewhere.safetensors")
    refused(copied / kind, f"{file.name}: a symbolic link out of the directory; put the file")
    file.unlink()
    file.symlink_to("../elsewhere.safetensors")
    refused(copied / kind, "a symbolic link out of the directory")


def test_links_of_a_hub_cache_are_followed(copied):
    """Its snapshots hold links to the blobs beside them; those of another model are out of bounds."""
    snapshot = copied / "models--a--b" / "snapshots" / "0123"
    blobs = copied / "models--a--b" / "blobs"
    snapshot.parent.mkdir(parents=True)
    blobs.mkdir()
    (copied / "single").rename(snapshot)
    (snapshot / SINGLE).rename(blobs / "abc")
    (snapshot / SINGLE).symlink_to("../../blobs/abc")
    assert EMBED in Shards(snapshot).tensors

    (snapshot / SINGLE).unlink()
    (copied / "blobs").mkdir()
    (blobs / "abc").rename(copied / "blobs" / "abc")
    (snapshot / SINGLE).symlink_to(copied / "blobs" / "abc")
    refused(snapshot, "a symbolic link out of the directory")


def test_a_part_of_a_tensor(kinds):
    shards = Shards(kinds / "single")
    whole = shards.read(EMBED)
    assert whole.shape == shards.tensors[EMBED].shape == (208, 32)
    np.testing.assert_array_equal(shards.read(EMBED, (slice(200, 300), slice(4))), whole[200:, :4])
