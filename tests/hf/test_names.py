import numpy as np
import tiny
from flax import traverse_util

from sari_jax.hf.names import rules
from sari_jax.models.audio_lm import abstract_params


def test_every_parameter_has_one_rule_and_every_tensor_too(tiny_model):
    found = rules(tiny_model.config, tiny_model.names)
    paths = [rule.path for rule in found]
    assert sorted(paths) == sorted(traverse_util.flatten_dict(abstract_params(tiny_model.config)))
    theirs = [tiny.module_name(name, tiny_model.names) for rule in found for name in rule.names]
    # A tied head is not listed twice.
    expected = {name for name, _ in tiny_model.theirs.named_parameters() if not tiny.unused(name)}
    assert len(theirs) == len(set(theirs)) and set(theirs) == expected


def test_axes_turn_and_turn_back(one_tiny):
    for rule in rules(one_tiny.config, one_tiny.names):
        name = tiny.module_name(rule.names[0], one_tiny.names)
        tensor = np.asarray(one_tiny.theirs.get_parameter(name).detach())
        np.testing.assert_array_equal(rule.to_theirs(rule.to_ours(tensor)), tensor)
        found = tiny.flatten(one_tiny.params)["/".join(rule.path)]
        np.testing.assert_array_equal(found[0] if rule.layers else found, rule.to_ours(tensor))


def test_linear_maps_are_transposed_and_convolutions_reversed(one_tiny):
    by_path = {"/".join(rule.path): rule for rule in rules(one_tiny.config, one_tiny.names)}
    tensor = np.arange(24).reshape(2, 3, 4)
    assert by_path["tower/conv1/kernel"].to_ours(tensor).shape == (4, 3, 2)
    assert by_path["decoder/layers/k_proj/kernel"].to_ours(tensor[0]).shape == (4, 3)
    assert by_path["decoder/embed/embedding"].to_ours(tensor[0]).shape == (3, 4)
