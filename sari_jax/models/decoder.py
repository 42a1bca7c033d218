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


class KVCache(NamedTuple):
    """Keys and values of every layer.

    A prompt cache is [L, B, K, P, D], one copy per prompt.
    A completion cache is [L, I, N, K, T, D]; see `ActiveSequences`.
    """

    keys: Array
    values: Array


@flax.struct.dataclass
class ActiveSequences:
    """The completions that are still decoded, as rows of I data shards; finished ones are left out.

    The batch is split into I data shards of R = B / I * G completions. A completion never changes its shard.

    Attributes:
        places: [I, N] the place of each row among its shard's R completions; all differ. While N = R they are in order.
        size: R.
        group: G.
    """

    places: Int[Array, "I N"]
    size: int = flax.struct.field(pytree_node=False)
    group: int = flax.struct.field(pytree_node=False)

    def select(self, values: Shaped[Array, "I R ..."]) -> Shaped[Array, "I N ..."]:
        """Selects the active rows of an array over all completions."""
        if self.places.shape[1] == self.size:
            return values
        return jax.vmap(lambda shard, places: shard[places])(values, self.places)

    def scatter(
        self, whole: Shaped[Array, "I R ..."], values: Shaped[Array, "I N ..."]
    ) -> Shaped[Array, "I R ..."]:
        """Writes the active rows' values into an array over all completions."""
        if self.places.shape[1] == self.size:
            return values
        return jax.vmap(lambda shard, places, rows: shard.at[places].set(rows))(
            whole, self.places, values
        )

    def expand(self, values: Shaped[Array, "I N ..."]) -> Shaped[Array, "I R ..."]:
        """Puts the active rows at their completions' places, with zeros elsewhere."""
        shards, _, *rest = values.shape
        return self.scatter(jnp.zeros((shards, self.size, *rest), values.dtype), values)

    def from_prompt(self, values: Shaped[Array, "B ..."]) -> Shaped[Array, "I N ..."]:
        """Copies each prompt's value to its active rows."""
        shards = values.reshape(self.places.shape[0], -1, *values.shape[1:])
        return jax.vmap(lambda shard, places: shard[places // self.group])(shards, self.places)


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

    def qkv(
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

    def output_and_mlp(
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

    def prefill(self, x: Float[Array, "B P E"]) -> tuple[Float[Array, "B P E"], KVCache]:
        """Embedded prefixes, padded on the right -> final hidden states and every layer's keys and values.

        Padding needs no mask: it comes after everything a real position may look at.
        """
        size = x.shape[1]
        rope = self._rope(jnp.arange(size)[None, None])

        def body(layer: DecoderLayer, x: Array, _: None) -> tuple[Array, KVCache]:
            q, k, v = layer.qkv(x, rope)
            x = layer.output_and_mlp(x, self.attend(q, (Context(k, v, causal=True),)))
            return x, KVCache(k[:, 0], v[:, 0])

        x, prompt_cache = nn.scan(self.layers, body, x[:, None], remat=self.remat)
        return self.norm(x[:, 0]), prompt_cache

    def extend(
        self,
        x: Float[Array, "B P E"],
        lengths: Int[Array, "B"],
        y: Float[Array, "B G T E"],
    ) -> tuple[Float[Array, "B P E"], Float[Array, "B G T E"]]:
        """Prefixes and their completions through every layer together, for training and scoring.

        The completions attend to their prompt's keys layer by layer. These keys are never stored
        for more than one layer: P + G * T tokens of work for what the repeated form does in G * (P + T).
        """
        p, t = x.shape[1], y.shape[2]
        prompt_rope = self._rope(jnp.arange(p)[None, None])
        completion_rope = self._rope(lengths[:, None, None] + jnp.arange(t))

        def body(layer: DecoderLayer, xy: tuple[Array, Array], _: None) -> tuple:
            x, y = xy
            q, k, v = layer.qkv(x, prompt_rope)
            x = layer.output_and_mlp(x, self.attend(q, (Context(k, v, causal=True),)))
            shared = Context(k[:, 0], v[:, 0], lengths)
            q, k, v = layer.qkv(y, completion_rope)
            return (
                x,
                layer.output_and_mlp(y, self.attend(q, (shared, Context(k, v, causal=True)))),
            ), None

        (x, y), _ = nn.scan(self.layers, body, (x[:, None], y), remat=self.remat)
        return self.norm(x[:, 0]), self.norm(y)

    def decode(
        self,
        y: Float[Array, "I N E"],
        rows: ActiveSequences,
        step: Int[Array, ""],
        lengths: Int[Array, "B"],
        prompt_cache: KVCache,
        completion_cache: KVCache,
    ) -> tuple[Float[Array, "I N E"], KVCache]:
        """One token of the completions that still run: the `step`-th after their prefixes of `lengths` tokens.

        All linear maps cost as many rows as there are, whatever G was. Only the product with the shared keys, which
        are read once per prompt however many ask, is laid out in whole groups.

        Args:
            completion_cache: the rows' keys and values, [L, I, N, K, T, D]. The scan carries it and writes it in place
                at (layer, step). The prompt cache is only read.
        """
        rope = self._rope((rows.from_prompt(lengths)[..., None] + step).astype(jnp.int32))

        def write(buffer: Array, new: Array, index: Array) -> Array:
            return jax.lax.dynamic_update_slice(
                buffer, new[None].astype(buffer.dtype), (index, 0, 0, 0, step, 0)
            )

        def body(layer: DecoderLayer, carry: tuple, inputs: tuple) -> tuple:
            (y, completion_cache), (index, prompt_cache) = carry, inputs
            q, k, v = layer.qkv(y, rope)
            completion_cache = KVCache(
                write(completion_cache.keys, k, index), write(completion_cache.values, v, index)
            )
            mine = (
                jax.lax.dynamic_index_in_dim(x, index, keepdims=False) for x in completion_cache
            )
            everyone = rows.expand(q).reshape(-1, rows.group, *q.shape[2:])
            shared = tuple(
                rows.select(x.reshape(-1, rows.size, *x.shape[2:]))
                for x in part(everyone, Context(*prompt_cache, lengths))
            )
            attended = join([shared, part(q, Context(*mine, step + 1))]).astype(y.dtype)
            return (layer.output_and_mlp(y, attended), completion_cache), None

        indices = jnp.arange(self.config.layers)
        (y, completion_cache), _ = nn.scan(
            self.layers, body, (y[:, :, None], completion_cache), (indices, prompt_cache)
        )
        return self.norm(y[:, :, 0]), completion_cache
