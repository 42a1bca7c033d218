import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sari_jax.generate import rollout as module
from sari_jax.generate.rollout import SHORT, encode, rollout
from sari_jax.generate.sampling import Sampler
from sari_jax.models.audio_lm import bind
from sari_jax.parallel.mesh import AXES, shard_batch
from sari_jax.rl.policy import reference_logprobs

ENDS, PAD = (
    tuple(range(10, 30)),
    1,
)  # a tenth of the vocabulary ends a completion: after ten tokens or so
SEEDS = jnp.array([5, 6, 7])


@functools.cache
def batch():
    """Rows of equal shapes in every test, so that few programs are compiled."""
    return tiny.prompts(tiny.ragged(), tokens=64, clips=3)


def row(prompts, *rows):
    return jax.tree.map(lambda array: array[np.array(rows)], prompts)


@pytest.fixture(scope="module")
def sampled(one_tiny):
    """12 tokens, 4 completions of 3 prompts, with any change of key, seeds, prompts or settings."""

    def run(seeds=SEEDS, key=0, prompts=None, **settings):
        sampler = Sampler(
            **(
                dict(completions=4, max_tokens=12, end_ids=ENDS, pad_id=PAD, temperature=0.8)
                | settings
            )
        )
        prompts = batch() if prompts is None else prompts
        done = rollout(
            one_tiny.config, sampler, one_tiny.params, prompts, seeds, jax.random.key(key)
        )
        return jax.device_get(done)

    return run


def test_64_greedy_tokens_as_transformers(tiny_model, recorded):
    questions = tiny.ragged()
    sampler = Sampler(completions=1, max_tokens=64, end_ids=(), pad_id=0, temperature=0)
    done = rollout(tiny_model.config, sampler, tiny_model.params, batch(), SEEDS, jax.random.key(0))
    assert (done.lengths == 64).all() and not done.ended.any()
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
        done.ended.reshape(12),
        np.asarray(done.mask).reshape(12, 12),
        strict=True,
    ):
        ends = np.flatnonzero(np.isin(tokens, ENDS))
        assert ended == bool(ends.size)
        assert length == (ends[0] + 1 if ended else 12)  # the end token is part of it
        assert (tokens[length:] == PAD).all() and not logprobs[length:].any()
        assert (logprobs[:length] < 0).all()
        assert mask.tolist() == [i < length for i in range(12)]
    assert done.ended.any() and not done.ended.all() and len(set(done.lengths.flat)) > 3


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
    """A prompt's completions are its own: alone, elsewhere in the batch, among others."""
    together = sampled()
    turned = sampled(seeds=SEEDS[::-1], prompts=row(batch(), 2, 1, 0))
    np.testing.assert_array_equal(turned.tokens[::-1], together.tokens)
    among = sampled(seeds=jnp.array([5, 0, 1]), prompts=row(batch(), 0, 2, 2))
    np.testing.assert_array_equal(among.tokens[0], together.tokens[0])
    assert not np.array_equal(among.tokens[1], among.tokens[2])  # one prompt, two seeds
    alone = sampled(seeds=SEEDS[1:2], prompts=row(batch(), 1))
    np.testing.assert_array_equal(alone.tokens[0], together.tokens[1])
    np.testing.assert_array_equal(alone.lengths[0], together.lengths[1])
    np.testing.assert_allclose(alone.logprobs[0], together.logprobs[1], rtol=0, atol=1e-5)


def test_logprobs_are_those_the_loss_will_find(sampled, one_tiny):
    done = sampled()
    scored = reference_logprobs(
        one_tiny.config, one_tiny.params, batch(), done.tokens, temperature=0.8
    )
    mask = np.asarray(done.mask)
    np.testing.assert_allclose(np.asarray(scored)[mask], done.logprobs[mask], rtol=0, atol=1e-5)


def test_encode_gives_the_features_that_completions_hear(one_tiny):
    features = encode(one_tiny.config, one_tiny.params, batch())
    expected = bind(one_tiny.config, one_tiny.params).encode(batch())
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5)


def test_rows_that_are_moved_together_go_on_as_they_would(sampled, one_tiny, monkeypatch):
    """On three devices, each with a prompt whose rows never leave it."""
    whole = sampled()
    monkeypatch.setattr(module, "SHORT", 0)
    devices = np.array(jax.devices()[:3]).reshape(1, 3, 1)
    mesh = Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 3)
    everywhere = NamedSharding(mesh, PartitionSpec())
    prompts, seeds = shard_batch(mesh, jax.device_get((batch(), SEEDS)))
    params, key = jax.device_put((one_tiny.params, jax.random.key(0)), everywhere)
    leaves, form = jax.tree.flatten((params, prompts, seeds, key))
    sampler = Sampler(4, 13, ENDS, PAD, 0.8)

    @jax.jit
    def on_three(leaves):
        return rollout(one_tiny.config, sampler, *form.unflatten(leaves))

    with jax.set_mesh(mesh):
        program = on_three.lower(leaves).compile()
        moved = program(leaves)
    assert "all-gather(" not in program.as_text() and "all-to-all(" not in program.as_text()
    assert {shard.data.shape for shard in moved.tokens.addressable_shards} == {(1, 4, 13)}
    moved = jax.device_get(moved)
    assert whole.lengths.sum() <= moved.computed < 12 * 12
    np.testing.assert_array_equal(moved.tokens[..., :12], whole.tokens)
    np.testing.assert_allclose(moved.logprobs[..., :12], whole.logprobs, rtol=0, atol=1e-5)


def test_finished_completions_stop_costing(one_tiny):
    """Lengths are geometric with a mean of 0.4 of the limit: every token is as likely, and 4 of 208 end."""
    decoder = one_tiny.params["decoder"]
    silent = jax.tree.map(jnp.zeros_like, decoder["norm"])
    params = one_tiny.params | {"decoder": decoder | {"norm": silent}}
    sampler = Sampler(8, 140, tuple(range(10, 14)), PAD)
    assert sampler.max_tokens > SHORT
    prompts, seeds = row(batch(), 0, 1, 2, 0), jnp.arange(4)
    done = rollout(one_tiny.config, sampler, params, prompts, seeds, jax.random.key(0))
    assert 0.3 < done.lengths.mean() / 140 < 0.45
    assert 1 - done.lengths.sum() / done.computed < 0.25
