"""Directories of the same tiny model in every form that a checkpoint takes."""

import dataclasses
import shutil

import ml_dtypes
import pytest
import tiny


@pytest.fixture(scope="session")
def kinds(one_tiny, tmp_path_factory):
    """The same model as a single file, in shards, in bfloat16, and one that is tied."""
    root = tmp_path_factory.mktemp("kinds")
    sizes, tied = one_tiny.sizes, dataclasses.replace(one_tiny.sizes, tied=True)
    tensors = tiny.weights(sizes)
    half = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors.items()}
    tiny.save(tensors, root / "single", sizes)
    tiny.save(tensors, root / "sharded", sizes, max_shard_size="60KB")
    tiny.save(half, root / "bfloat16", sizes, max_shard_size="40KB")
    tiny.save(tiny.weights(tied), root / "tied", tied)
    assert len(list((root / "sharded").glob("*.safetensors"))) > 2
    return root


@pytest.fixture
def copied(kinds, tmp_path):
    """Two directories to spoil."""
    for kind in ("single", "sharded"):
        shutil.copytree(kinds / kind, tmp_path / kind)
    return tmp_path
