"""The programs of a run are those that training compiles; test_compile.py compiles them."""

import dataclasses

import jax
import pytest
import tiny

from sari_jax.errors import InputError
from sari_jax.models.audio_lm import abstract_params
from sari_jax.models.config import Adapter
from sari_jax.models.sizes import SIZES
from sari_jax.scale.programs import Programs, Question, model_config
from sari_jax.scale.topology import GIB, Topology
from sari_jax.train.config import Grpo, Mesh, Model, Optimizer, Run

FULL = Run(
    stage="grpo",
    batch_size=8,
    model=Model(size="qwen2_audio_7b", dtype="bfloat16", reference_dtype="bfloat16", trainable=("*",)),
    mesh=Mesh(decode_tensor=4),
)  # fmt: skip


@pytest.fixture(scope="module")
def eight():
    """Fake devices in the place of chips: nothing is compiled here."""
    return Topology(name="v5e:2x4", kind="v5e", slices=1, devices=tuple(jax.devices()))


def test_state_is_split_over_all_chips(eight):
    """Weights and two moments in float32, the reference in half of that: 14 bytes a parameter."""
    count = sum(x.size for x in jax.tree.leaves(abstract_params(SIZES["qwen2_audio_7b"])))
    found = Programs(FULL, eight)
    assert found.resident == pytest.approx(14 * count / 8, rel=0.02)
    narrow = dataclasses.replace(
        FULL,
        optimizer=Optimizer(moments_dtype="bfloat16"),
        model=dataclasses.replace(FULL.model, reference_memory="host"),
    )
    waiting = Programs(narrow, eight)
    assert waiting.resident == pytest.approx(8 * count / 8, rel=0.02)
    beside = {program.name: program.beside for program in waiting.all()}
    assert beside["reference"] == pytest.approx(
        waiting.resident, rel=0.01
    )  # no part of it is given
    assert found.largest_replicated < 64 * 2**20
    many = dataclasses.replace(FULL, mesh=Mesh(fsdp=2, tensor=4))
    assert Programs(many, eight).resident == pytest.approx(found.resident, rel=0.02)


def test_an_objective_keeps_and_runs_what_it_compares_with(eight):
    """DAPO has no reference at all; two updates, and a KL in the reward, have a pass for the old log-probabilities."""
    whole = Programs(FULL, eight)
    count = sum(x.size for x in jax.tree.leaves(abstract_params(SIZES["qwen2_audio_7b"])))
    for settings, scoring in (
        (Grpo(objective="dapo"), []),
        (Grpo(objective="dapo", updates_per_rollout=2), ["old"]),
        (Grpo(objective="rloo"), ["reference", "old"]),
    ):
        found = Programs(dataclasses.replace(FULL, grpo=settings), eight)
        names = [program.name for program in found.all()]
        assert names == ["encode", "policy", "prefill", "decode", *scoring, "update"]
        spared = 0 if settings.uses_reference else 2 * count / 8  # in bfloat16, over eight chips
        assert whole.resident - found.resident == pytest.approx(spared, rel=0.02)
        updates = whole.all()[-1].flops * settings.updates_per_rollout
        assert found.all()[-1].flops == pytest.approx(updates)


def test_work_and_what_is_beside(eight):
    rows = {program.name: program for program in Programs(FULL, eight).all()}
    assert list(rows) == ["encode", "policy", "prefill", "decode", "reference", "update"]
    # 7.8e9 weights that multiply, for a token; a prompt of 878 tokens and 8 completions of 512.
    tokens = 8 * (878 + 8 * 512)
    assert rows["reference"].flops == pytest.approx(2 * 7.0e9 * tokens, rel=0.2)
    assert rows["update"].flops == pytest.approx(3 * rows["reference"].flops, rel=0.1)
    assert rows["prefill"].flops + rows["decode"].flops < rows["reference"].flops
    assert rows["update"].beside < rows["reference"].beside < rows["decode"].beside
    assert rows["decode"].beside / GIB == pytest.approx(14 * 8.4e9 / 8 / GIB, rel=0.02)
    frozen = dataclasses.replace(FULL.model, trainable=("projector/*", "decoder/*"))
    fewer = {p.name: p for p in Programs(dataclasses.replace(FULL, model=frozen), eight).all()}
    assert fewer["update"].flops < rows["update"].flops


def test_sft_has_its_own(eight):
    run = dataclasses.replace(FULL, stage="sft")
    rows = {program.name: program for program in Programs(run, eight).all()}
    assert list(rows) == ["encode", "policy", "prefill", "decode", "sft"]
    in_two = dataclasses.replace(run, batch_size=16, micro_batches=2)
    twice = {program.name: program for program in Programs(in_two, eight).all()}
    assert twice["sft"].flops == pytest.approx(2 * rows["sft"].flops)
    assert twice["decode"].flops == rows["decode"].flops


def test_an_adapter_keeps_one_copy_of_the_model(eight):
    """Two bytes a parameter, and of the adapter its weights and moments; its reference is the model without it."""
    adapted = Model(
        size="qwen2_audio_7b", dtype="bfloat16", frozen_dtype="bfloat16", adapter=Adapter(rank=32)
    )
    run = dataclasses.replace(FULL, model=adapted)
    count = sum(x.size for x in jax.tree.leaves(abstract_params(SIZES["qwen2_audio_7b"])))
    found = Programs(run, eight)
    added = sum(x.size for x in found.state.params.values())
    assert added == 32 * 32 * (4 * 8192 + 3 * (4096 + 11008)) and found.reference == {}
    assert found.resident == pytest.approx((2 * count + 12 * added) / 8, rel=0.02)
    assert found.largest_replicated < 64 * 2**20
    rows = {program.name: program for program in found.all()}
    full = {program.name: program for program in Programs(FULL, eight).all()}
    assert list(rows) == list(full)
    assert rows["update"].flops < 0.7 * full["update"].flops  # no kernel has a gradient
    alone = Topology(name="v6e:1x1", kind="v6e", slices=1, devices=tuple(jax.devices()[:1]))
    one = Programs(dataclasses.replace(run, batch_size=1, mesh=Mesh()), alone)
    beside = {program.name: program.beside for program in one.all()}
    # Decoding is given the frozen decoder that lies there already: beside it are the tower, and the adapter's state.
    params = abstract_params(SIZES["qwen2_audio_7b"])
    tower = sum(x.size for x in jax.tree.leaves(params["tower"]))
    assert beside["decode"] == pytest.approx(2 * tower + 12 * added, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "question", "message"),
    [
        ({"batch_size": 12}, Question(), "for one prompt per chip, --config.batch_size=8"),
        ({"mesh": Mesh(decode_tensor=3)}, Question(), "heads = 32 do not divide by mesh.decode_tensor = 3"),
        ({"mesh": Mesh(tensor=8)}, Question(), "tower/layers/q_proj: heads = 20 do not divide by mesh.tensor = 8"),
        ({}, Question(audio_seconds=31.0), "31.0 s: must be above 0 and at most 30 s"),
        ({"model": Model()}, Question(), "neither model.path nor model.size is set"),
    ],
)  # fmt: skip
def test_settings_that_the_chips_cannot_run(eight, changes, question, message):
    with pytest.raises(InputError, match=message):
        Programs(dataclasses.replace(FULL, **changes), eight, question)


def test_a_model_directory_goes_before_a_size(tmp_path):
    made = tiny.make(tmp_path / "tiny", tiny.Sizes())
    run = Run(model=Model(path=str(made.directory), size="qwen2_audio_7b"), grpo=Grpo())
    assert model_config(run).decoder == made.config.decoder
