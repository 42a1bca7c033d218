"""Decoding in a layout of its own: the same completions, and no weights that travel with a token."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny
from flax import traverse_util
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from sari_jax.errors import InputError
from sari_jax.generate.layout import DecodingPolicy
from sari_jax.generate.rollout import decode, prefill, rollout
from sari_jax.generate.sampling import Sampler
from sari_jax.hf.load import load_params
from sari_jax.models.audio_lm import bind
from sari_jax.parallel.mesh import decoding_mesh, make_mesh, reshard, shard_batch, spec
from sari_jax.programs import counted
from sari_jax.scale.hlo import moved

SAMPLER = Sampler(num_completions=2, max_tokens=12, end_ids=(7,), pad_id=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    sizes = tiny.Sizes(heads=8, kv_heads=4, head_dim=4, tower_heads=4, tower_width=16)
    return tiny.make(tmp_path_factory.mktemp("models") / "wide", sizes)


def in_int8(model, **where):
    """(config, parameters) with the decoder's projections in eight bits."""
    params = load_params(model.directory, model.config, dtype="int8", **where)
    return dataclasses.replace(model.config, quantized="int8"), params


def flat(params):
    return traverse_util.flatten_dict(params, sep="/")


@pytest.fixture(scope="module")
def trained(model):
    """The parameters in the layout of training: split eight ways, and nothing over heads."""
    mesh = make_mesh(1, 8, 1)
    return load_params(model.directory, model.config, mesh=mesh), mesh


@pytest.fixture(scope="module")
def eight(model, trained):
    """Eight prompts in the layout of training."""
    prompts = tiny.prompts([tiny.question([0.2 + 0.1 * i], 5 + i, i) for i in range(8)])
    features = jax.jit(lambda params, prompts: bind(model.config, params).encode(prompts))(
        model.params, prompts
    )
    host = jax.device_get((prompts, np.arange(8, dtype=np.int32), features))
    return shard_batch(trained[1], host)


@pytest.mark.numerics
@pytest.mark.parametrize(("tensor", "quantized"), [(1, ""), (4, ""), (4, "int8")])
def test_completions_are_those_of_one_device(tensor, quantized, model, trained, eight):
    (params, mesh), batch = trained, eight
    config, whole = model.config, model.params
    if quantized:
        (config, whole), (_, params) = in_int8(model), in_int8(model, mesh=mesh)
    prompts, seeds, features = jax.device_get(batch)
    key = jax.random.key(3)
    given = (*jax.device_put((prompts, seeds)), key, jax.device_put(features))
    alone = rollout(config, SAMPLER, whole, *given)
    decoding = decoding_mesh(mesh, tensor)
    policy = DecodingPolicy(config, decoding)(flat(params))
    assert "tower" not in policy
    kernel = policy["decoder"]["layers"]["up_proj"]["kernel"]
    assert kernel.sharding.spec == P(None, None, "tensor")
    prompts, seeds, features = reshard(batch, NamedSharding(decoding, spec("batch")))
    with jax.set_mesh(decoding):
        done = rollout(config, SAMPLER, policy, prompts, seeds, key, features)
    rows = NamedSharding(decoding, spec("batch"))
    assert done.tokens.sharding.is_equivalent_to(rows, done.tokens.ndim)
    np.testing.assert_array_equal(done.tokens, alone.tokens)
    np.testing.assert_allclose(done.logprobs, alone.logprobs, rtol=0, atol=1e-5)


@pytest.mark.numerics
def test_a_decoded_token_moves_no_weights(model, trained, eight):
    """Only activations: far less than a layer's kernels, in whichever layout the weights were trained."""
    (params, mesh), batch = trained, eight
    decoding = decoding_mesh(mesh, 4)
    policy = DecodingPolicy(model.config, decoding)(flat(params))
    prompts, seeds, features = reshard(batch, NamedSharding(decoding, spec("batch")))
    with jax.set_mesh(decoding):
        hidden, prompt_cache = prefill(model.config, policy, prompts, features)
        placed = NamedSharding(decoding, spec(None, "batch", "heads"))
        assert prompt_cache.keys.sharding.is_equivalent_to(placed, prompt_cache.keys.ndim)
        given = (policy, prompts.lengths, hidden, prompt_cache, seeds, jax.random.key(0))
        leaves, form = jax.tree.flatten(given)
        program = jax.jit(lambda leaves: decode(model.config, SAMPLER, *form.unflatten(leaves)))
        text = program.lower(leaves).compile().as_text()
    (token,) = moved(text).per_turn
    assert "all-gather" not in moved(text).once or moved(text).once["all-gather"] < 1e4
    rows, c = 2 * 8 * 4 / 8, model.config.decoder
    residual = 2 * c.layers * rows * c.width * 4
    assert token["all-reduce"] < 2 * (2 * residual + rows * c.width * 4 + 1e3)
    kernels = 4 * c.width * (2 * c.heads * c.head_dim + 3 * c.ffn) * c.layers
    assert sum(token.values()) < kernels / 4


def test_nothing_is_copied_where_nothing_changes(model):
    """One device, and activations as wide as the parameters."""
    layout = DecodingPolicy(model.config, decoding_mesh(make_mesh(8, 1, 1), 1))
    params = load_params(model.directory, model.config, mesh=make_mesh(8, 1, 1))
    policy = layout(flat(params))
    assert policy["decoder"]["head"]["embedding"] is params["decoder"]["head"]["embedding"]


@pytest.mark.numerics
def test_of_a_frozen_narrow_model_its_adapter_alone_is_narrowed(model):
    """One device: the kernels that all of training reads are decoding's too."""
    config = dataclasses.replace(model.config, dtype="bfloat16")
    mesh = make_mesh(8, 1, 1)
    params = flat(load_params(model.directory, model.config, mesh=mesh, dtype="bfloat16"))
    place = NamedSharding(mesh, P())
    factors = {
        f"decoder/layers/q_proj/lora_{letter}": jax.device_put(np.ones(shape, np.float32), place)
        for letter, shape in (("a", (2, 32, 3)), ("b", (2, 3, 32)))
    }
    layout = DecodingPolicy(config, decoding_mesh(mesh, 1))
    assert set(layout.changing(params | factors)) == set(factors)
    policy = flat(layout(params | factors))
    assert {array.dtype.name for array in policy.values()} == {"bfloat16"}
    for path, array in policy.items():
        assert path in factors or array is params[path]


def test_the_policy_is_laid_out_by_one_program(model, trained):
    params, mesh = trained
    layout = DecodingPolicy(model.config, decoding_mesh(mesh, 2))
    layout(flat(params))
    with counted() as programs:
        layout(flat(params))
    assert programs.count == 0


def test_a_decoding_mesh_takes_from_fsdp():
    mesh = make_mesh(2, 4, 1)
    assert dict(decoding_mesh(mesh, 2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert list(decoding_mesh(mesh, 4).devices.flat) == list(mesh.devices.flat)
    with pytest.raises(
        InputError, match=r"decode_tensor = 3 does not fit .* choose of \[1, 2, 4\]"
    ):
        decoding_mesh(mesh, 3)
