"""Directories of the same tiny model in every form that a checkpoint takes."""

import shutil

import pytest
import tiny
import torch


@pytest.fixture(scope="session")
def kinds(one_tiny, tmp_path_factory):
    """The same model as a single file, in shards, in bfloat16, and one that is tied."""
    root = tmp_path_factory.mktemp("kinds")
    theirs = tiny.random_model(one_tiny.sizes, 0)
    sizes, tied = one_tiny.sizes, tiny.SIZES["grouped_80_tied"]
    tiny.save(theirs, root / "single", sizes)
    tiny.save(theirs, root / "sharded", sizes, max_shard_size="60KB")
    tiny.save(theirs.to(torch.bfloat16), root / "bfloat16", sizes, max_shard_size="40KB")
    tiny.save(tiny.random_model(tied, 0), root / "tied", tied)
    assert len(list((root / "sharded").glob("*.safetensors"))) > 2
    return root


@pytest.fixture
def copied(kinds, tmp_path):
    """Two directories to spoil."""
    for kind in ("single", "sharded"):
        shutil.copytree(kinds / kind, tmp_path / kind)
    return tmp_path
