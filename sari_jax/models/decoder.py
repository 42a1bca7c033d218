"""Qwen2's language model over groups: [B, G, T] tokens that share B prefixes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from sari_jax.models import layers as nn
from sari_jax.models.attention import Context, attend, rotary, rotate
from sari_jax.models.config import DecoderConfig


class KeyValues(NamedTuple):
    """Keys and values of every layer.

    Of a prefix: [L, B, P, K, D], one copy per prompt. Of completions: [L, B, G, T, K, D].
    """

    keys: Array
    values: Array


class DecoderLayer(nnx.Module):
    """Pre-norm causal layer: grouped-query attention with rotary positions, SwiGLU."""

    def __init__(self, config: DecoderConfig, dtype: str, rngs: nnx.Rngs):
        self.config = config
        width, query, kv = (
            config.width,
            config.heads * config.head_dim,
            config.kv_heads * config.head_dim,
        )
        self.attention_norm = nn.rms_norm(width, config.norm_eps, dtype=dtype, rngs=rngs)
        self.q_proj = nn.linear(width, query, bias=True, dtype=dtype, rngs=rngs)
        self.k_proj = nn.linear(width, kv, bias=True, dtype=dtype, rngs=rngs)
        self.v_proj = nn.linear(width, kv, bias=True, dtype=dtype, rngs=rngs)
        self.o_proj = nn.linear(query, width, bias=False, dtype=dtype, rngs=rngs)
        self.ffn_norm = nn.rms_norm(width, config.norm_eps, dtype=dtype, rngs=rngs)
        self.gate_proj = nn.linear(width, config.ffn, bias=False, dtype=dtype, rngs=rngs)
        self.up_proj = nn.linear(width, config.ffn, bias=False, dtype=dtype, rngs=rngs)
        self.down_proj = nn.linear(config.ffn, width, bias=False, dtype=dtype, rngs=rngs)

    def project(
        self, x: Float[Array, "B G T E"], rope: tuple[Array, Array]
    ) -> tuple[Float[Array, "B G T H D"], Float[Array, "B G T K D"], Float[Array, "B G T K D"]]:
        """Rotated queries and keys, and values, of the normalised residual stream."""
        y, head = self.attention_norm(x), self.config.head_dim
        q, k, v = (
            proj(y).reshape(*y.shape[:3], -1, head)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        return rotate(q, rope), rotate(k, rope), v

    def finish(
        self, x: Float[Array, "B G T E"], q: Array, contexts: tuple[Context, ...]
    ) -> Float[Array, "B G T E"]:
        """Attends, then the feed-forward part; both residual."""
        x = x + self.o_proj(attend(q, contexts))
        y = self.ffn_norm(x)
        return x + self.down_proj(jax.nn.silu(self.gate_proj(y)) * self.up_proj(y))


class Decoder(nnx.Module):
    def __init__(self, config: DecoderConfig, dtype: str, remat: bool, rngs: nnx.Rngs):
        self.config, self.remat, self.dtype = config, remat, jnp.dtype(dtype)
        init = nnx.initializers.normal(0.02)
        self.embed = nnx.Embed(
            config.vocabulary, config.width, dtype=self.dtype, embedding_init=init, rngs=rngs
        )
        self.layers = nn.stack(lambda rngs: DecoderLayer(config, dtype, rngs), config.layers, rngs)
        self.norm = nn.rms_norm(config.width, config.norm_eps, dtype=dtype, rngs=rngs)
        if not config.tied:
            self.head = nnx.Embed(
                config.vocabulary, config.width, dtype=self.dtype, embedding_init=init, rngs=rngs
            )

    @property
    def unembedding(self) -> Float[Array, "V E"]:
        return (self.embed if self.config.tied else self.head).embedding[...]

    def logits(self, hidden: Float[Array, "... E"]) -> Float[Array, "... V"]:
        """Float32 logits. For a few positions only: training uses `chunked_logprobs`."""
        return jnp.einsum(
            "...e,ve->...v", hidden, self.unembedding.astype(hidden.dtype),
            preferred_element_type=jnp.float32,
        )  # fmt: skip

    def _rope(self, positions: Int[Array, "B G T"]) -> tuple[Array, Array]:
        return rotary(positions, self.config.head_dim, self.config.rope_theta)

    def prefill(self, x: Float[Array, "B P E"]) -> tuple[Float[Array, "B P E"], KeyValues]:
        """Embedded prefixes, padded on the right -> final hidden states and every layer's keys and values.

        Padding needs no mask: it comes after everything a real position may look at.
        """
        size = x.shape[1]
        rope = self._rope(jnp.arange(size)[None, None])
        causal = jnp.tril(jnp.ones((size, size), bool))[None, None]

        def body(layer: DecoderLayer, x: Array, _: None) -> tuple[Array, KeyValues]:
            q, k, v = layer.project(x, rope)
            return layer.finish(x, q, (Context(k, v, causal),)), KeyValues(k[:, 0], v[:, 0])

        x, prefix = nn.scan(self.layers, body, x[:, None], remat=self.remat)
        return self.norm(x[:, 0]), prefix

    def extend(
        self,
        x: Float[Array, "B P E"],
        lengths: Int[Array, "B"],
        y: Float[Array, "B G T E"],
    ) -> tuple[Float[Array, "B P E"], Float[Array, "B G T E"]]:
        """Prefixes and their completions through every layer together, for training and scoring.

        Layer by layer the completions attend to their prefix's keys, which therefore are never stored
        for more than one layer: P + G * T tokens of work for what the repeated form does in G * (P + T).
        """
        p, t = x.shape[1], y.shape[2]
        prefix_rope = self._rope(jnp.arange(p)[None, None])
        own_rope = self._rope(lengths[:, None, None] + jnp.arange(t))
        prefix_causal = jnp.tril(jnp.ones((p, p), bool))[None, None]
        own_causal = jnp.tril(jnp.ones((t, t), bool))[None, None]
        seen = (jnp.arange(p) < lengths[:, None])[:, None, None]

        def body(layer: DecoderLayer, xy: tuple[Array, Array], _: None) -> tuple:
            x, y = xy
            q, k, v = layer.project(x, prefix_rope)
            x = layer.finish(x, q, (Context(k, v, prefix_causal),))
            shared = Context(k[:, 0], v[:, 0], seen)
            q, k, v = layer.project(y, own_rope)
            return (x, layer.finish(y, q, (shared, Context(k, v, own_causal)))), None

        (x, y), _ = nn.scan(self.layers, body, (x[:, None], y), remat=self.remat)
        return self.norm(x[:, 0]), self.norm(y)

    def decode(
        self,
        y: Float[Array, "B G E"],
        step: Int[Array, ""],
        lengths: Int[Array, "B"],
        prefix: KeyValues,
        own: KeyValues,
    ) -> tuple[Float[Array, "B G E"], KeyValues]:
        """One token of every completion: the `step`-th after its prefix of `lengths` tokens.

        `own` travels as the scan's carry and is written at (layer, step) in place; the prefix is only read.
        """
        p, t = prefix.keys.shape[2], own.keys.shape[3]
        rope = self._rope((lengths[:, None, None] + step).astype(jnp.int32))
        seen = (jnp.arange(p) < lengths[:, None])[:, None, None]
        so_far = (jnp.arange(t) <= step)[None, None, None]

        def write(buffer: Array, new: Array, index: Array) -> Array:
            return jax.lax.dynamic_update_slice(
                buffer, new[None].astype(buffer.dtype), (index, 0, 0, step, 0, 0)
            )

        def body(layer: DecoderLayer, carry: tuple, inputs: tuple) -> tuple:
            (y, own), (index, prefix) = carry, inputs
            q, k, v = layer.project(y, rope)
            own = KeyValues(write(own.keys, k, index), write(own.values, v, index))
            mine = (jax.lax.dynamic_index_in_dim(part, index, keepdims=False) for part in own)
            contexts = (Context(*prefix, seen), Context(*mine, so_far))
            return (layer.finish(y, q, contexts), own), None

        indices = jnp.arange(self.config.layers)
        (y, own), _ = nn.scan(self.layers, body, (y[:, :, None], own), (indices, prefix))
        return self.norm(y[:, :, 0]), own
