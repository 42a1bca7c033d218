"""Counts of moved bytes: in a module written by hand, and in one that XLA compiled for eight devices."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from sari_jax.parallel.mesh import make_mesh
from sari_jax.scale.hlo import moved

MODULE = """HloModule by_hand

%adds (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused (p: bf16[4,8]) -> bf16[16,8] {
  %p = bf16[4,8]{1,0} parameter(0)
  ROOT %gathered = bf16[16,8]{1,0} all-gather(%p), channel_id=1, replica_groups=mesh['x'=4,'y'=2] {'x'}, dimensions={0}
}

%until_8 (s: (u32[], f32[4])) -> pred[] {
  %s = (u32[], f32[4]{0}) parameter(0)
  %counter = u32[] get-tuple-element(%s), index=0
  %limit = u32[] constant(8)
  ROOT %less = pred[] compare(%counter, %limit), direction=LT
}

%two_at_once (s: (u32[], f32[4])) -> (u32[], f32[4]) {
  %s = (u32[], f32[4]{0}) parameter(0)
  %counter = u32[] get-tuple-element(%s), index=0
  %x = f32[4]{0} get-tuple-element(%s), index=1
  %two = u32[] constant(2)
  %next = u32[] add(%counter, %two)
  %to-start = (f32[4], f32[4], u32[], u32[]) collective-permute-start(%x), channel_id=2, source_target_pairs={{0,1}}
  %to = f32[4]{0} collective-permute-done(%to-start)
  ROOT %state = (u32[], f32[4]{0}) tuple(%next, %to)
}

%until_ended (s: (u32[], f32[4])) -> pred[] {
  %s = (u32[], f32[4]{0}) parameter(0)
  ROOT %more = pred[] custom-call(%s), custom_call_target="unknown"
}

%token (s: (u32[], f32[4])) -> (u32[], f32[4]) {
  %s = (u32[], f32[4]{0}) parameter(0)
  %counter = u32[] get-tuple-element(%s), index=0
  %x = f32[4]{0} get-tuple-element(%s), index=1
  %all = f32[4]{0} all-reduce(%x), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%adds
  ROOT %state = (u32[], f32[4]{0}) tuple(%counter, %all)
}

ENTRY %main (p: bf16[4,8], s: (u32[], f32[4])) -> (u32[], f32[4]) {
  %p = bf16[4,8]{1,0} parameter(0)
  %s = (u32[], f32[4]{0}) parameter(1)
  %begun = bf16[16,8]{1,0} fusion(%p), kind=kCustom, calls=%fused
  %again = bf16[16,8]{1,0} fusion(%p), kind=kCustom, calls=%fused
  %spread = f32[2]{0} reduce-scatter(%q), channel_id=4, replica_groups=[4,2]<=[8], dimensions={0}, to_apply=%adds
  %looped = (u32[], f32[4]{0}) while(%s), condition=%until_8, body=%two_at_once
  ROOT %out = (u32[], f32[4]{0}) while(%looped), condition=%until_ended, body=%token
}
"""


def test_loops_steps_and_groups_by_hand():
    found = moved(MODULE)
    assert found.once == {
        "all-gather": 3 / 4 * 16 * 8 * 2,  # one channel, which stands there twice
        "collective-permute": 4 * 4 * 4,  # four turns, as each does two of eight
        "reduce-scatter": (2 - 1) * 2 * 4,
    }
    assert found.per_turn == [{"all-reduce": 2 * 3 / 4 * 4 * 4}]


def test_what_xla_compiled():
    """Weights and rows are both sharded: each layer gathers its weights."""
    mesh = make_mesh(1, 8, 1)
    layers = jax.ShapeDtypeStruct(
        (5, 16, 16), jnp.float32, sharding=NamedSharding(mesh, P(None, "fsdp"))
    )
    rows = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=NamedSharding(mesh, P("fsdp")))

    @jax.jit
    def through(layers, x):
        def layer(x, kernel):
            return jax.lax.with_sharding_constraint(jnp.tanh(x @ kernel), P("fsdp")), None

        return jax.lax.scan(layer, x, layers)[0]

    with jax.set_mesh(mesh):
        found = moved(through.lower(layers, rows).compile().as_text())
    assert found.per_turn == []
    assert found.once["all-gather"] == pytest.approx(5 * 7 / 8 * 16 * 16 * 4)
