"""The updates on several devices and of a batch in parts: against one device and the whole batch."""

import contextlib
import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from sari_jax.generate.rollout import Completions
from sari_jax.hf.load import load_params
from sari_jax.parallel.mesh import make_mesh, parameter_sharding, shard_batch
from sari_jax.train.config import Grpo
from sari_jax.train.optimizer import partition
from sari_jax.train.state import create_state
from sari_jax.train.updates import Rollout, SftPart, grpo_update, sft_update

SETTINGS = Grpo(temperature=0.7, kl_coefficient=0.3)
# Heads that divide by four, in both families.
WIDE = {
    "qwen2_audio": tiny.Sizes(heads=8, kv_heads=4, head_dim=4, tower_heads=4, tower_width=16),
    "omni": tiny.Sizes(
        family="qwen2_5_omni",
        heads=4,
        kv_heads=4,
        head_dim=10,
        tower_heads=4,
        tower_width=32,
        mels=128,
    ),
}
MESHES = ((8, 1), (4, 2), (2, 4))


@pytest.fixture(
    scope="module", params=["qwen2_audio", pytest.param("omni", marks=pytest.mark.numerics)]
)
def wide(request, tmp_path_factory):
    return tiny.make(tmp_path_factory.mktemp("wide") / request.param, WIDE[request.param])


def on(mesh, model, stage, micro_batches=1, settings=SETTINGS):
    """(loss, gradient) of one step over eight prompts, as a run does it; on one device if `mesh` is None.

    SFT goes through the tower too, GRPO takes its features as given.
    """
    group = 2 if stage == "grpo" else 1
    tokens, mask = (
        x.reshape(8, group, 8) for x in tiny.padded(tiny.answers([8, 3, 5, 1] * (2 * group)), 8)
    )
    prompts = tiny.prompts([tiny.question([0.2 + 0.1 * i], 5 + i, i) for i in range(8)])
    rng = np.random.default_rng(0)
    batch = (
        jax.device_get(prompts),
        tokens,
        mask,
        -rng.uniform(4, 6, tokens.shape).astype(np.float32),
        rng.standard_normal((8, group)).astype(np.float32),
        rng.standard_normal((8, 1, 25, model.sizes.tower_width)).astype(np.float32),
    )
    params = load_params(model.directory, model.config, mesh=mesh)
    parts = partition(params, ("projector/*", "decoder/*"))
    batch = jax.device_put(batch) if mesh is None else shard_batch(mesh, batch)
    (trainable, frozen), (prompts, tokens, mask, reference, advantages, features) = parts, batch
    state = create_state(trainable, tiny.recording())
    with jax.set_mesh(mesh) if mesh is not None else contextlib.nullcontext():
        if stage == "sft":
            whole = [SftPart(prompts, tokens, mask)]
            halves = [jax.tree.map(lambda x, i=i: x[4 * i : 4 * i + 4], whole[0]) for i in (0, 1)]
            in_two = mesh is not None and mesh.shape["fsdp"] == 2
            parts = halves if in_two else whole
            state, metrics = sft_update(
                state, frozen, parts, config=model.config, optimizer=tiny.recording()
            )
        else:
            done = Completions(tokens, reference, mask.sum(-1), mask.any(-1))
            kept = reference if settings.uses_reference else None
            old = reference + 0.3 if settings.needs_old_logprobs else None
            rollout = Rollout(prompts, done, features, kept, old, advantages)
            state, metrics = grpo_update(
                state,
                frozen,
                rollout,
                config=model.config,
                settings=settings,
                optimizer=tiny.recording(),
                micro_batches=micro_batches,
            )
    if mesh is not None:  # every gradient is laid out as its parameter is
        for path, gradient in state.opt_state.items():
            placed = parameter_sharding(mesh, path, gradient.shape)
            assert gradient.sharding.is_equivalent_to(placed, gradient.ndim), path
            assert state.params[path].sharding.is_equivalent_to(placed, gradient.ndim), path
    return jax.device_get((metrics, state.opt_state))


@pytest.mark.numerics
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_eight_devices_as_one(stage, wide):
    metrics, gradient = on(None, wide, stage)
    for fsdp, tensor in MESHES:
        found, found_gradient = on(make_mesh(1, fsdp, tensor), wide, stage)
        assert found["loss"] == pytest.approx(metrics["loss"], rel=1e-5)
        tiny.assert_close(found_gradient, gradient, 1e-5)


# Each with old log-probabilities of its own, a weight for the sampler's mismatch, and two updates.
SETTINGS_OF = {
    name: dataclasses.replace(
        SETTINGS, objective=name, updates_per_rollout=2, importance_cap=2.0, kl_coefficient=beta
    )
    for name, beta in (("dr_grpo", 0.0), ("dapo", 0.0), ("gspo", 0.1), ("rloo", 0.1))
}


def same_in_parts(mesh, model, settings):
    metrics, gradient = on(mesh, model, "grpo", settings=settings)
    for count in (2, 4):
        found, found_gradient = on(mesh, model, "grpo", count, settings)
        assert found.keys() == metrics.keys()
        for name, value in metrics.items():
            assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name
        tiny.assert_close(found_gradient, gradient, 1e-5)


@pytest.mark.numerics
@pytest.mark.parametrize("mesh", [None, (2, 4)], ids=["one", "eight"])
def test_a_batch_in_parts_is_the_same_update(mesh, one_tiny, wide):
    same_in_parts(make_mesh(1, *mesh) if mesh else None, wide if mesh else one_tiny, SETTINGS)


@pytest.mark.numerics
@pytest.mark.parametrize("settings", SETTINGS_OF.values(), ids=list(SETTINGS_OF))
def test_a_batch_in_parts_is_the_same_by_every_objective(settings, one_tiny):
    same_in_parts(None, one_tiny, settings)


@pytest.mark.numerics
def test_two_updates_over_devices_in_parts_are_the_same(wide):
    same_in_parts(make_mesh(1, 2, 4), wide, SETTINGS_OF["dapo"])


@pytest.mark.numerics
def test_an_update_over_devices_gathers_weights_and_never_prompts(wide):
    """Of what is exchanged nothing is as large as the residual stream of the other devices' rows."""
    mesh = make_mesh(1, 8, 1)
    prompts = tiny.prompts([tiny.question([0.3], 70, i) for i in range(8)])
    prompts, tokens, mask = shard_batch(
        mesh, (jax.device_get(prompts), np.ones((8, 2, 90), np.int32), np.ones((8, 2), bool))
    )
    params = load_params(wide.directory, wide.config, mesh=mesh)
    trainable, frozen = partition(params, ("projector/*", "decoder/*"))
    scores = jnp.zeros_like(tokens, jnp.float32)
    features = shard_batch(mesh, np.zeros((8, 1, 25, wide.sizes.tower_width), np.float32))
    done = Completions(tokens, scores, jnp.full_like(mask, 90, jnp.int32), mask)
    rollout = Rollout(prompts, done, features, scores, advantages=scores[..., 0])
    given = create_state(trainable, tiny.recording()), frozen, rollout
    leaves, form = jax.tree.flatten(given)
    static = {"config": wide.config, "settings": SETTINGS, "optimizer": tiny.recording()}
    with jax.set_mesh(mesh):
        update = jax.jit(lambda *leaves: grpo_update(*form.unflatten(leaves), **static))
        compiled = update.lower(*leaves).compile()
    width = wide.config.decoder.width
    rows = 8 * 2 * 89 * width
    exchanged = re.findall(r"f32\[([\d,]+)\]\S* all-(?:gather|reduce)\(", compiled.as_text())
    sizes = [np.prod([int(n) for n in shape.split(",")]) for shape in exchanged]
    assert sizes and max(sizes) < rows
