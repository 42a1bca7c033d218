import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sari_jax.generate import rollout as module
from sari_jax.generate.rollout import SHORT, encode, prefill, rollout
from sari_jax.generate.sampling import Sampler
from sari_jax.parallel.mesh import AXES, shard_batch
from sari_jax.rl.policy import reference_logprobs

# A tenth of the vocabulary ends a completion: after about ten tokens.
ENDS = tuple(range(10, 30))
PAD = 1
SEEDS = jnp.array([5, 6, 7])


@functools.cache
def batch():
    """Rows of equal shapes in every test, so that few programs are compiled."""
    return tiny.prompts(tiny.ragged(), tokens=64, clips=3)


@functools.cache
def random_features(width):
    """Random features: decoding does not depend on what a clip sounds like."""
    noise = np.random.default_rng(2).standard_normal((3, 3, 25, width))
    return jnp.asarray(noise, jnp.float32)


def row(prompts, *rows):
    return jax.tree.map(lambda array: array[np.array(rows)], prompts)


@pytest.fixture(scope="module")
def sampled(one_tiny):
    """12 tokens, 4 completions of 3 prompts, with any change of key, seeds, rows or settings."""

    def run(seeds=SEEDS, key=0, rows=(0, 1, 2), **settings):
        chosen = dict(num_completions=4, max_tokens=12, end_ids=ENDS, pad_id=PAD, temperature=0.8)
        features = random_features(one_tiny.sizes.tower_width)
        given = (
            one_tiny.params,
            row(batch(), *rows),
            seeds,
            jax.random.key(key),
            row(features, *rows),
        )
        return jax.device_get(rollout(one_tiny.config, Sampler(**(chosen | settings)), *given))

    run()  # compiled for all that ask for it, at no test's cost
    return run


@pytest.mark.numerics
@tiny.each_model("grouped_128_tied", "omni")
def test_64_greedy_tokens_as_transformers(tiny_model, recorded, monkeypatch):
    monkeypatch.setattr(module, "SHORT", 64)  # one loop, as no row ends
    questions = tiny.ragged()
    sampler = Sampler(num_completions=1, max_tokens=64, end_ids=(), pad_id=0, temperature=0)
    done = rollout(tiny_model.config, sampler, tiny_model.params, batch(), SEEDS, jax.random.key(0))
    assert (done.lengths == 64).all() and not done.done.any()
    tokens = np.asarray(done.tokens[:, 0])
    for ours, wanted in recorded(
        {"tokens": tokens}, lambda theirs: {"tokens": theirs.greedy(tiny_model, questions, 64)}
    ):
        assert ours["tokens"].tolist() == wanted["tokens"].tolist()
    for row in tokens.tolist():
        assert len(set(row)) > 5  # not one token for ever, which any model could do


def test_what_a_batch_of_completions_looks_like(sampled):
    done = sampled()
    assert done.tokens.shape == done.logprobs.shape == (3, 4, 12) and done.lengths.shape == (3, 4)
    for tokens, logprobs, length, ended, mask in zip(
        *(
            np.asarray(part).reshape(12, *part.shape[2:])
            for part in (done.tokens, done.logprobs, done.lengths)
        ),
        done.done.reshape(12),
        np.asarray(done.mask).reshape(12, 12),
        strict=True,
    ):
        ends = np.flatnonzero(np.isin(tokens, ENDS))
        assert ended == bool(ends.size)
        assert length == (ends[0] + 1 if ended else 12)  # the end token is part of it
        assert (tokens[length:] == PAD).all() and not logprobs[length:].any()
        assert (logprobs[:length] < 0).all()
        assert mask.tolist() == [i < length for i in range(12)]
    assert done.done.any() and not done.done.all() and len(set(done.lengths.flat)) > 3


def test_completions_of_a_group_differ(sampled):
    done = sampled()
    for group in done.tokens:
        assert len({tuple(tokens) for tokens in group.tolist()}) == 4


def test_the_key_decides(sampled):
    first, again, other = sampled(), sampled(), sampled(key=1)
    np.testing.assert_array_equal(first.tokens, again.tokens)
    np.testing.assert_array_equal(first.logprobs, again.logprobs)
    assert not (first.tokens == other.tokens).all(axis=-1).any()


def test_neighbours_do_not_matter(sampled):
    """A prompt's completions are its own: elsewhere in the batch, among others."""
    together = sampled()
    turned = sampled(seeds=SEEDS[::-1], rows=(2, 1, 0))
    np.testing.assert_array_equal(turned.tokens[::-1], together.tokens)
    among = sampled(seeds=jnp.array([5, 0, 1]), rows=(0, 2, 2))
    np.testing.assert_array_equal(among.tokens[0], together.tokens[0])
    assert not np.array_equal(among.tokens[1], among.tokens[2])  # one prompt, two seeds


@pytest.mark.numerics
def test_a_prompt_alone_has_the_completions_it_has_in_a_batch(sampled):
    together, alone = sampled(), sampled(seeds=SEEDS[1:2], rows=(1,))
    np.testing.assert_array_equal(alone.tokens[0], together.tokens[1])
    np.testing.assert_array_equal(alone.lengths[0], together.lengths[1])
    np.testing.assert_allclose(alone.logprobs[0], together.logprobs[1], rtol=0, atol=1e-5)


def test_logprobs_are_those_the_loss_will_find(sampled, one_tiny):
    done, features = sampled(), random_features(one_tiny.sizes.tower_width)
    scored = jax.jit(
        lambda params, tokens: reference_logprobs(
            one_tiny.config, params, batch(), tokens, features, temperature=0.8
        )
    )(one_tiny.params, done.tokens)
    mask = np.asarray(done.mask)
    np.testing.assert_allclose(np.asarray(scored)[mask], done.logprobs[mask], rtol=0, atol=1e-5)


@pytest.mark.numerics
@pytest.mark.parametrize("seed", [0, 1])
def test_logprobs_of_a_bfloat16_rollout(seed, tmp_path):
    """Those that the loss finds in bfloat16, and float32's up to its rounding.

    Measured over these seeds, in nats: at most 1e-6 from the same in another program (0.0012 in Omni's decoder, where
    a sum went the other way), and root mean squares of 0.021 and 0.024 from float32 (Omni: 0.019 and 0.025).
    """
    model = tiny.make(tmp_path / "model", tiny.Sizes(), seed)
    narrow = dataclasses.replace(model.config, dtype="bfloat16")
    features = random_features(model.sizes.tower_width)
    given = batch(), SEEDS, jax.random.key(0), features
    sampler = Sampler(num_completions=4, max_tokens=12, end_ids=(), pad_id=PAD, temperature=0.8)
    done = jax.device_get(rollout(narrow, sampler, model.params, *given))

    def scored(config):
        def score(params):
            return reference_logprobs(
                config, params, batch(), done.tokens, features, temperature=0.8
            )

        return np.asarray(jax.jit(score)(model.params))

    assert np.abs(scored(narrow) - done.logprobs).max() < 0.005
    away = np.sqrt(np.mean((scored(model.config) - done.logprobs) ** 2))
    assert 0.005 < away < 0.035


@pytest.mark.numerics
def test_encode_gives_the_features_that_completions_hear(one_tiny):
    features = encode(one_tiny.config, one_tiny.params, batch())
    given, own = (
        prefill(one_tiny.config, one_tiny.params, batch(), known) for known in (features, None)
    )
    for some, wanted in zip(jax.tree.leaves(given), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(some, wanted, rtol=0, atol=1e-5)


@pytest.mark.numerics
def test_rows_that_still_run_are_decoded_together(sampled, monkeypatch):
    """One stage for all rows and one for half of them: the same completions, for less."""
    whole = sampled()
    monkeypatch.setattr(module, "SHORT", 0)
    monkeypatch.setattr(module, "STAGES", (1, 1 / 2))
    staged = sampled(max_tokens=13)
    assert whole.lengths.sum() <= staged.rows_decoded < 12 * 12
    np.testing.assert_array_equal(staged.tokens[..., :12], whole.tokens)
    np.testing.assert_allclose(staged.logprobs[..., :12], whole.logprobs, rtol=0, atol=1e-5)


@pytest.mark.numerics
def test_rows_that_are_moved_together_go_on_as_they_would(sampled, one_tiny, monkeypatch):
    """On three devices, each with a prompt whose rows never leave it."""
    whole = sampled()
    monkeypatch.setattr(module, "SHORT", 0)
    devices = np.array(jax.devices()[:3]).reshape(1, 3, 1)
    mesh = Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 3)
    everywhere = NamedSharding(mesh, PartitionSpec())
    features = random_features(one_tiny.sizes.tower_width)
    prompts, seeds, features = shard_batch(mesh, jax.device_get((batch(), SEEDS, features)))
    params, key = jax.device_put((one_tiny.params, jax.random.key(0)), everywhere)
    leaves, form = jax.tree.flatten((params, prompts, seeds, key, features))
    sampler = Sampler(num_completions=4, max_tokens=13, end_ids=ENDS, pad_id=PAD, temperature=0.8)

    @jax.jit
    def on_three(leaves):
        return rollout(one_tiny.config, sampler, *form.unflatten(leaves))

    with jax.set_mesh(mesh):
        program = on_three.lower(leaves).compile()
        moved = program(leaves)
    assert "all-gather(" not in program.as_text() and "all-to-all(" not in program.as_text()
    assert {shard.data.shape for shard in moved.tokens.addressable_shards} == {(1, 4, 13)}
    moved = jax.device_get(moved)
    assert whole.lengths.sum() <= moved.rows_decoded < 12 * 12
    np.testing.assert_array_equal(moved.tokens[..., :12], whole.tokens)
    np.testing.assert_allclose(moved.logprobs[..., :12], whole.logprobs, rtol=0, atol=1e-5)


@pytest.mark.numerics
def test_finished_completions_stop_costing(one_tiny):
    """Lengths are geometric with a mean of 0.4 of the limit: every token is as likely, and 4 of 208 end."""
    decoder = one_tiny.params["decoder"]
    silent = jax.tree.map(jnp.zeros_like, decoder["norm"])
    params = one_tiny.params | {"decoder": decoder | {"norm": silent}}
    sampler = Sampler(num_completions=8, max_tokens=140, end_ids=tuple(range(10, 14)), pad_id=PAD)
    assert sampler.max_tokens > SHORT
    rows, seeds = (0, 1, 2, 0), jnp.arange(4)
    prompts, features = row(batch(), *rows), row(random_features(one_tiny.sizes.tower_width), *rows)
    done = rollout(one_tiny.config, sampler, params, prompts, seeds, jax.random.key(0), features)
    assert 0.3 < done.lengths.mean() / 140 < 0.45
    assert 1 - done.lengths.sum() / done.rows_decoded < 0.25


def test_profiles_name_the_modules(one_tiny):
    """The scopes that a profiler shows, in the locations of the lowered program; nothing is compiled."""
    sampler = Sampler(num_completions=2, max_tokens=4, end_ids=ENDS, pad_id=PAD)
    given = one_tiny.params, batch(), SEEDS, jax.random.key(0)
    leaves, treedef = jax.tree.flatten(given)

    def sample(leaves):
        return rollout(one_tiny.config, sampler, *treedef.unflatten(leaves))

    locations = jax.jit(sample).lower(leaves).as_text(debug_info=True)
    for scope in ("encoder", "attention", "mlp", "head", "sampling"):
        assert re.search(rf'["/]{scope}/', locations), scope
