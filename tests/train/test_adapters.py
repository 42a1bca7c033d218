"""Runs that train adapters: updates as peft's, resumed to the bit, small checkpoints, and what comes out of them."""

import contextlib
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from sari_jax.cli import main
from sari_jax.errors import InputError
from sari_jax.generate.rollout import Completions
from sari_jax.hf.config import read_config
from sari_jax.hf.load import load_params
from sari_jax.models.config import Adapter
from sari_jax.models.lora import without_adapter
from sari_jax.parallel.mesh import (
    make_mesh,
    parameter_sharding,
    parameter_shardings,
    shard_batch,
)
from sari_jax.rl.advantages import group_advantages
from sari_jax.rl.policy import reference_logprobs
from sari_jax.train.config import Grpo, Model, defaults, freeze
from sari_jax.train.loop import train, trained_params
from sari_jax.train.optimizer import merge, partition
from sari_jax.train.reference import make_reference
from sari_jax.train.state import create_state
from sari_jax.train.updates import Rollout, SftPart, grpo_update, sft_update

ADAPTER = Adapter(3, alpha=5.0, targets=("decoder/layers/*_proj", "projector"))
SETTINGS = Grpo(temperature=0.7, kl_coefficient=0.3)
QUESTIONS = [tiny.question([0.51], 9, 1), tiny.question([0.33, 0.9137], 14, 2)]
ANSWERS = tiny.answers((5, 3, 8, 6, 1, 7), 4)  # three completions each
REWARDS = np.array([[2.0, 0.0, 1.0], [1.0, 2.0, 1.0]], np.float32)


def by_torch(theirs, model):
    """The reference is the same network with its adapter disabled, as trainers with peft have it."""
    import torch

    network = theirs.adapted(model)
    repeated = [question for question in QUESTIONS for _ in range(3)]

    def logprobs():
        rows = theirs.completion_scores(
            network, model.sizes, repeated, ANSWERS, SETTINGS.temperature
        )
        return [chosen for _, chosen in rows]

    with torch.no_grad(), network.disable_adapter():
        kept = logprobs()
    rewards = torch.tensor(REWARDS, dtype=torch.float64)
    advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    sequences, divergences = [], []
    for new, old, advantage in zip(logprobs(), kept, advantages.flatten(), strict=True):
        k3 = torch.exp(old - new) - (old - new) - 1
        gain = torch.exp(new - new.detach()) * advantage
        sequences.append((gain - SETTINGS.kl_coefficient * k3).mean())
        divergences.append(k3.detach())
    loss = -torch.stack(sequences).mean()
    found = theirs.adapter_gradients(model, network, loss)
    return {"loss": loss.detach(), "kl": torch.cat(divergences).mean(), **found}


@pytest.mark.numerics
def test_a_grpo_update_as_peft(one_tiny, recorded):
    model = tiny.adapted(one_tiny, ADAPTER)
    tokens, mask = (x.reshape(2, 3, 8) for x in tiny.padded(ANSWERS, 8))
    trainable, frozen = partition(model.params, ("*/lora_[ab]",))
    prompts, tokens = tiny.prompts(QUESTIONS), jnp.array(tokens)
    kept = reference_logprobs(
        without_adapter(model.config), merge({}, frozen), prompts, tokens, temperature=0.7
    )
    done = Completions(
        tokens, jnp.zeros(tokens.shape), jnp.array(mask.sum(-1), jnp.int32), jnp.ones((2, 3), bool)
    )
    optimizer = tiny.recording()
    state = create_state(jax.tree.map(jnp.copy, trainable), optimizer)
    advantages = group_advantages(jnp.array(REWARDS))
    rollout = Rollout(prompts, done, reference=kept, advantages=advantages)
    state, metrics = grpo_update(
        state, frozen, rollout, config=model.config, settings=SETTINGS, optimizer=optimizer
    )
    found = {name: metrics[name] for name in ("loss", "kl")} | jax.device_get(state.opt_state)
    for ours, wanted in recorded(found, lambda theirs: by_torch(theirs, model)):
        for name in ("loss", "kl"):
            assert float(ours.pop(name)) == pytest.approx(float(wanted.pop(name)), rel=1e-5)
        tiny.assert_close(ours, wanted, 1e-5)


def test_the_reference_holds_what_learns_as_a_whole_and_no_adapter(one_tiny):
    """With it and the frozen parameters the network without adapters is the one that the run began with."""
    model = tiny.adapted(one_tiny, ADAPTER)
    trainable, frozen = partition(model.params, ("*/lora_[ab]", "projector/*"))
    kept = make_reference(Model(), trainable)
    assert set(kept) == {"projector/kernel", "projector/bias"}
    moved = {path: x + 1 for path, x in trainable.items()}
    assert tiny.flatten(merge({**kept}, frozen)).keys() == tiny.flatten(one_tiny.params).keys()
    for path, array in tiny.flatten(merge(kept, frozen)).items():
        np.testing.assert_array_equal(array, tiny.flatten(one_tiny.params)[path], err_msg=path)
        assert path not in moved or (moved[path] != array).all()


@pytest.mark.numerics
def test_dropout_differs_by_step_seed_and_part(one_tiny):
    """And by nothing else: the same step again is the same update."""
    model = tiny.adapted(one_tiny, ADAPTER)
    ids, mask = (jnp.array(x)[:, None] for x in tiny.padded(ANSWERS[:2], 8))
    rows = SftPart(tiny.prompts(QUESTIONS), ids, mask)
    trainable, frozen = partition(model.params, ("*/lora_[ab]",))

    optimizer = tiny.recording()

    def gradient(seed, number=0, parts=(rows,), dropout=0.5):
        state = create_state(jax.tree.map(jnp.copy, trainable), optimizer)
        state = dataclasses.replace(state, step=jnp.int32(number))
        state, _ = sft_update(
            state,
            frozen,
            parts,
            config=model.config,
            optimizer=optimizer,
            dropout=dropout,
            seed=seed,
        )
        return state.opt_state["projector/lora_b"]

    first = gradient(0)
    np.testing.assert_array_equal(gradient(0), first)
    for other in (gradient(0, number=1), gradient(1), gradient(0, dropout=0.0)):
        assert jnp.abs(other - first).max() > 1e-3 * jnp.abs(first).max()
    # The same rows twice over: were both parts to drop the same, their mean would be that of one.
    twice = gradient(0, parts=(rows, rows))
    assert jnp.abs(twice - first).max() > 1e-3 * jnp.abs(first).max()
    even = gradient(0, parts=(rows, rows), dropout=0.0)
    np.testing.assert_allclose(even, gradient(0, dropout=0.0), rtol=1e-4, atol=1e-7)


@pytest.mark.numerics
def test_eight_devices_as_one(tmp_path):
    """Every gradient, what is dropped too; each lies as the table says."""
    sizes = tiny.Sizes(heads=8, kv_heads=4, head_dim=4, tower_heads=4, tower_width=16)
    wide = tiny.make(tmp_path / "wide", sizes)
    model = tiny.adapted(wide, dataclasses.replace(ADAPTER, targets=("*_proj",)))
    tokens, mask = (x[:, None] for x in tiny.padded(tiny.answers([8, 3, 5, 1] * 2), 8))
    prompts = tiny.prompts([tiny.question([0.2 + 0.1 * i], 5 + i, i) for i in range(8)])
    batch = (jax.device_get(prompts), tokens, mask)

    def gradient(mesh):
        flat = {path: jnp.asarray(x) for path, x in tiny.flatten(model.params).items()}
        rows = jax.device_put(batch) if mesh is None else shard_batch(mesh, batch)
        if mesh is not None:
            flat = jax.device_put(flat, parameter_shardings(mesh, flat))
        trainable, frozen = partition(merge(flat, {}), ("*/lora_[ab]",))
        with jax.set_mesh(mesh) if mesh is not None else contextlib.nullcontext():
            state = create_state(trainable, tiny.recording())
            state, metrics = sft_update(
                state,
                frozen,
                [SftPart(*rows)],
                config=model.config,
                optimizer=tiny.recording(),
                dropout=0.2,
            )
        for path, array in state.opt_state.items() if mesh is not None else ():
            placed = parameter_sharding(mesh, path, array.shape)
            assert not placed.is_fully_replicated
            assert array.sharding.is_equivalent_to(placed, array.ndim), path
        return jax.device_get((metrics["loss"], state.opt_state))

    loss, wanted = gradient(None)
    for fsdp, tensor in ((8, 1), (2, 4)):
        found, own = gradient(make_mesh(1, fsdp, tensor))
        assert found == pytest.approx(loss, rel=1e-5)
        tiny.assert_close(own, wanted, 1e-5)


def settings(stage, model, data, **changes):
    config = defaults()
    config.update_from_flattened_dict(
        {
            "stage": stage,
            "steps": 4,
            "batch_size": 8,
            "samples_every": 2,
            "checkpoint.every": 2,
            "model.path": str(model),
            "model.frozen_dtype": "bfloat16",
            "model.adapter.rank": 4,
            "data.train": str(data),
            "data.style": "direct",
            "data.shapes.answer_tokens": (16,),
            "data.shapes.prompt_tokens": (512,),
            "optimizer.learning_rate": 0.01,
            "grpo.num_completions": 2,
            "grpo.max_tokens": 8,
            **changes,
        }
    )
    return freeze(config)


@pytest.mark.runs
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_a_run_that_is_resumed_ends_with_the_same_bits(stage, request, scored, tmp_path, capfd):
    # GRPO begins with one that knows the form of an answer: else all rewards are alike, and nothing moves.
    model = request.getfixturevalue("small_model" if stage == "sft" else "answering")
    more = {
        "sft": {"model.adapter.dropout": 0.1},
        "grpo": {"model.trainable": ("projector/*",), "model.frozen_dtype": "int8"},
    }[stage]
    run = settings(stage, model, scored, **more)
    row = train(run, tmp_path / "whole")
    told = capfd.readouterr().err
    assert row["finished"] and "decoder/layers/q_proj/lora_a" in told and "all of them" in told
    asked = iter([False, False, False, True])
    assert train(run, tmp_path / "stopped", stop=lambda: next(asked))["step"] == 3
    assert train(run, tmp_path / "stopped")["finished"]
    whole, stopped = (
        tiny.flatten(trained_params(run, tmp_path / name)[1]) for name in ("whole", "stopped")
    )
    full = {path for path in whole if "/lora_" not in path}
    assert full == ({"projector/kernel", "projector/bias"} if stage == "grpo" else set())
    for path, array in whole.items():
        np.testing.assert_array_equal(array, stopped[path], err_msg=path)
        assert array.any(), f"{path} never moved"
    export = ["export", "--workdir", str(tmp_path / "whole"), "--out"]
    assert main([*export, str(tmp_path / "merged")]) == 0
    assert main([*export, str(tmp_path / "adapter"), "--adapter"]) == 0
    told = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    # GRPO's projector learnt as a whole.
    assert bool(told["modules_to_save"]) == (stage == "grpo")
    assert told["lora_dropout"] == run.model.adapter.dropout
    if stage == "grpo":
        # Merged into the source's own weights, and not into those in eight bits that it learnt beside.
        source, merged = (
            tiny.flatten(load_params(place, read_config(place), dtype="float32"))
            for place in (model, tmp_path / "merged")
        )
        path = "decoder/layers/up_proj"
        factors = [np.asarray(whole[f"{path}/lora_{letter}"]) for letter in "ab"]
        wanted = source[f"{path}/kernel"] + run.model.adapter.scale * factors[0] @ factors[1]
        np.testing.assert_allclose(merged[f"{path}/kernel"], wanted, rtol=1e-5, atol=1e-6)
        lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[0])["kl"] == pytest.approx(
            0, abs=1e-6
        )  # the policy is its reference
        assert json.loads(lines[-1])["kl"] > 1e-6


def test_dropout_is_for_sft():
    config = defaults()
    config.model.adapter.rank, config.model.adapter.dropout = 4, 0.1
    freeze(config)
    config.stage = "grpo"
    with pytest.raises(InputError, match="adapter.dropout = 0.1 is for SFT: GRPO learns from what"):
        freeze(config)


def test_eight_bits_are_for_adapters():
    config = defaults()
    config.model.frozen_dtype = "int8"
    with pytest.raises(InputError, match="freezes the decoder's projections; give them adapters"):
        freeze(config)
    config.model.adapter.rank = 4
    assert freeze(config).model.quantized == "int8"
    config.model.frozen_dtype = "int7"
    with pytest.raises(InputError, match="model.frozen_dtype = 'int7' is unknown"):
        freeze(config)
