import numpy as np
import pytest
import tiny
from flax import traverse_util

from sari_jax.hf.config import read_config
from sari_jax.hf.families import FAMILIES
from sari_jax.hf.names import tensor_rules
from sari_jax.models.audio_lm import abstract_params


@pytest.mark.parametrize("kind", tiny.SIZES)
def test_every_parameter_has_one_rule_and_every_tensor_too(kind, tmp_path):
    """Those that the directory holds are those that transformers asks for, as `theirs.opened` sees."""
    sizes = tiny.SIZES[kind]
    names, family = tiny.names_of(sizes), FAMILIES[sizes.family]
    tiny.save(tiny.weights(sizes), tmp_path, sizes)
    config = read_config(tmp_path)
    found = tensor_rules(config, names)
    paths = [rule.path for rule in found]
    assert sorted(paths) == sorted(traverse_util.flatten_dict(abstract_params(config)))
    theirs = [name for rule in found for name in rule.names]
    expected = {name for name in tiny.shapes(sizes) if not family.carries(name)}
    expected -= {names.unembedding} if sizes.tied else set()  # a copy of the embedding
    assert len(theirs) == len(set(theirs)) and set(theirs) == expected


def test_axes_turn_and_turn_back(one_tiny):
    tensors = tiny.weights(one_tiny.sizes)
    for rule in tensor_rules(one_tiny.config, tiny.names_of(one_tiny.sizes)):
        tensor = tensors[rule.names[0]]
        np.testing.assert_array_equal(rule.to_theirs(rule.to_ours(tensor)), tensor)
        found = tiny.flatten(one_tiny.params)["/".join(rule.path)]
        np.testing.assert_array_equal(found[0] if rule.layers else found, rule.to_ours(tensor))


def test_linear_maps_are_transposed_and_convolutions_reversed(one_tiny):
    found = tensor_rules(one_tiny.config, tiny.names_of(one_tiny.sizes))
    by_path = {"/".join(rule.path): rule for rule in found}
    tensor = np.arange(24).reshape(2, 3, 4)
    assert by_path["tower/conv1/kernel"].to_ours(tensor).shape == (4, 3, 2)
    assert by_path["decoder/layers/k_proj/kernel"].to_ours(tensor[0]).shape == (4, 3)
    assert by_path["decoder/embed/embedding"].to_ours(tensor[0]).shape == (3, 4)
