"""Qwen2's language model over groups: [B, G, T] tokens that share B prefixes."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Shaped

from sari_jax.models import layers as nn
from sari_jax.models.attention import Context, join, part, rotary, rotate
from sari_jax.models.config import AudioLMConfig, DecoderConfig
from sari_jax.models.kernels import ATTENTION
from sari_jax.parallel.mesh import constrain


class KeyValues(NamedTuple):
    """Keys and values of every layer.

    Of a prefix: [L, B, K, P, D], one copy per prompt. Of completions: [L, B, G, K, T, D].
    """

    keys: Array
    values: Array


@flax.struct.dataclass
class Rows:
    """Which completions are decoded: those that have ended are left out.

    B prompts of G completions lie in I islands of R = B / I * G completions each. An island is a part of the batch
    that one device holds: rows never leave theirs.

    Attributes:
        places: [I, N] which of its island's completions a row is; all differ. While N = R they stand in order.
        size: R.
        group: G.
    """

    places: Int[Array, "I N"]
    size: int = flax.struct.field(pytree_node=False)
    group: int = flax.struct.field(pytree_node=False)

    def gather(self, values: Shaped[Array, "I R ..."]) -> Shaped[Array, "I N ..."]:
        """The rows' part of what every completion has."""
        if self.places.shape[1] == self.size:
            return values
        return jax.vmap(lambda island, places: island[places])(values, self.places)

    def put(
        self, whole: Shaped[Array, "I R ..."], values: Shaped[Array, "I N ..."]
    ) -> Shaped[Array, "I R ..."]:
        """What every completion has, with the rows' new values."""
        if self.places.shape[1] == self.size:
            return values
        return jax.vmap(lambda island, places, rows: island.at[places].set(rows))(
            whole, self.places, values
        )

    def spread(self, values: Shaped[Array, "I N ..."]) -> Shaped[Array, "I R ..."]:
        """The rows' values where their completions are, and zeros between."""
        islands, _, *rest = values.shape
        return self.put(jnp.zeros((islands, self.size, *rest), values.dtype), values)

    def of_prompt(self, values: Shaped[Array, "B ..."]) -> Shaped[Array, "I N ..."]:
        """Each row's copy of what its prompt has."""
        islands = values.reshape(self.places.shape[0], -1, *values.shape[1:])
        return jax.vmap(lambda island, places: island[places // self.group])(islands, self.places)


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
    ) -> tuple[Float[Array, "B G T H D"], Float[Array, "B G K T D"], Float[Array, "B G K T D"]]:
        """Rotated queries and keys, and values, of the normalised residual stream."""
        y, head = self.attention_norm(x), self.config.head_dim
        q, k, v = (
            proj(y).reshape(*y.shape[:3], -1, head)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k, v = (constrain(x, "batch", None, None, "heads") for x in (q, k, v))
        return rotate(q, rope), jnp.swapaxes(rotate(k, rope), 2, 3), jnp.swapaxes(v, 2, 3)

    def finish(
        self, x: Float[Array, "B G T E"], attended: Float[Array, "B G T Q"]
    ) -> Float[Array, "B G T E"]:
        """What was attended to, then the feed-forward part; both residual."""
        x = constrain(x + self.o_proj(attended), "batch")
        y = self.ffn_norm(x)
        gate, up = (
            constrain(proj(y), "batch", None, None, "ffn")
            for proj in (self.gate_proj, self.up_proj)
        )
        return constrain(x + self.down_proj(jax.nn.silu(gate) * up), "batch")


class Decoder(nnx.Module):
    def __init__(self, whole: AudioLMConfig, rngs: nnx.Rngs):
        self.config, self.remat, dtype = whole.decoder, whole.remat, whole.dtype
        self.attend, self.dtype = ATTENTION[whole.attention], jnp.dtype(dtype)
        config = self.config
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

    def embedded(self, tokens: Int[Array, "B ..."]) -> Float[Array, "B ... E"]:
        """Each token's vector, where its row of the batch lies."""
        return constrain(self.embed(tokens), "batch")

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

        def body(layer: DecoderLayer, x: Array, _: None) -> tuple[Array, KeyValues]:
            q, k, v = layer.project(x, rope)
            x = layer.finish(x, self.attend(q, (Context(k, v, causal=True),)))
            return x, KeyValues(k[:, 0], v[:, 0])

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

        def body(layer: DecoderLayer, xy: tuple[Array, Array], _: None) -> tuple:
            x, y = xy
            q, k, v = layer.project(x, prefix_rope)
            x = layer.finish(x, self.attend(q, (Context(k, v, causal=True),)))
            shared = Context(k[:, 0], v[:, 0], lengths)
            q, k, v = layer.project(y, own_rope)
            return (x, layer.finish(y, self.attend(q, (shared, Context(k, v, causal=True))))), None

        (x, y), _ = nn.scan(self.layers, body, (x[:, None], y), remat=self.remat)
        return self.norm(x[:, 0]), self.norm(y)

    def decode(
        self,
        y: Float[Array, "I N E"],
        rows: Rows,
        step: Int[Array, ""],
        lengths: Int[Array, "B"],
        prefix: KeyValues,
        own: KeyValues,
    ) -> tuple[Float[Array, "I N E"], KeyValues]:
        """One token of the completions that still run: the `step`-th after their prefixes of `lengths` tokens.

        All linear maps cost as many rows as there are, whatever G was. Only the product with the shared keys, which
        are read once per prompt however many ask, is laid out in whole groups.

        Args:
            own: the rows' keys and values, [L, I, N, K, T, D]. They travel as the scan's carry and are written at
                (layer, step) in place; the prefix is only read.
        """
        rope = self._rope((rows.of_prompt(lengths)[..., None] + step).astype(jnp.int32))

        def write(buffer: Array, new: Array, index: Array) -> Array:
            return jax.lax.dynamic_update_slice(
                buffer, new[None].astype(buffer.dtype), (index, 0, 0, 0, step, 0)
            )

        def body(layer: DecoderLayer, carry: tuple, inputs: tuple) -> tuple:
            (y, own), (index, prefix) = carry, inputs
            q, k, v = layer.project(y, rope)
            own = KeyValues(write(own.keys, k, index), write(own.values, v, index))
            mine = (jax.lax.dynamic_index_in_dim(x, index, keepdims=False) for x in own)
            everyone = rows.spread(q).reshape(-1, rows.group, *q.shape[2:])
            shared = tuple(
                rows.gather(x.reshape(-1, rows.size, *x.shape[2:]))
                for x in part(everyone, Context(*prefix, lengths))
            )
            attended = join([shared, part(q, Context(*mine, step + 1))]).astype(y.dtype)
            return (layer.finish(y, attended), own), None

        indices = jnp.arange(self.config.layers)
        (y, own), _ = nn.scan(self.layers, body, (y[:, :, None], own), (indices, prefix))
        return self.norm(y[:, :, 0]), own
