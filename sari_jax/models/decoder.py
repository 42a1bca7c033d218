"""Qwen2's language model over groups: B prompts of P tokens, each shared by its G completions of T tokens.

                             +-- completion 1: T tokens
    prompt: P tokens  -------+-- completion 2: T tokens        P + G * T tokens of work for each prompt,
    (computed once)          |       ...                       where repeated prompts take G * (P + T)
                             +-- completion G: T tokens

`prefill` runs the prompts through the layers. `extend` runs the prompts with their completions, for training and
scoring. `decode` runs the next token of each completion, for sampling. A completion attends to its prompt's keys
and to its own.
"""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Shaped

from sari_jax.models import layers
from sari_jax.models.attention import (
    Context,
    merge_partials,
    partial_attention,
    rotary,
    rotate,
)
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
    """The completions that are still decoded, N in each data shard; finished ones are left out.

    The batch is split into I data shards of R = B * G / I completions. A completion never changes its shard.

    Attributes:
        places: [I, N] the index of each active row among its shard's R completions. No index is repeated. While N = R
            they are in order.
        size: R, the number of completions in each data shard.
        group: G, the number of completions of each prompt.
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
        """Returns an array over all completions, with zeros for those that are not active."""
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
        width = config.width
        query = config.heads * config.head_dim
        kv = config.kv_heads * config.head_dim
        self.attention_norm = layers.rms_norm(width, config.norm_eps, dtype=dtype, rngs=rngs)
        self.q_proj = layers.linear(width, query, bias=True, dtype=dtype, rngs=rngs)
        self.k_proj = layers.linear(width, kv, bias=True, dtype=dtype, rngs=rngs)
        self.v_proj = layers.linear(width, kv, bias=True, dtype=dtype, rngs=rngs)
        self.o_proj = layers.linear(query, width, bias=False, dtype=dtype, rngs=rngs)
        self.ffn_norm = layers.rms_norm(width, config.norm_eps, dtype=dtype, rngs=rngs)
        self.gate_proj = layers.linear(width, config.ffn, bias=False, dtype=dtype, rngs=rngs)
        self.up_proj = layers.linear(width, config.ffn, bias=False, dtype=dtype, rngs=rngs)
        self.down_proj = layers.linear(config.ffn, width, bias=False, dtype=dtype, rngs=rngs)

    @jax.named_scope("attention")
    def qkv(
        self, x: Float[Array, "B G T E"], rope: tuple[Array, Array]
    ) -> tuple[Float[Array, "B G T H D"], Float[Array, "B G K T D"], Float[Array, "B G K T D"]]:
        """Rotated queries and keys, and values, of the normalised residual stream."""
        y = self.attention_norm(x)
        q, k, v = (
            proj(y).reshape(*y.shape[:3], -1, self.config.head_dim)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k, v = (constrain(x, "batch", None, None, "heads") for x in (q, k, v))
        return rotate(q, rope), jnp.swapaxes(rotate(k, rope), 2, 3), jnp.swapaxes(v, 2, 3)

    def output_and_mlp(
        self, x: Float[Array, "B G T E"], attended: Float[Array, "B G T Q"]
    ) -> Float[Array, "B G T E"]:
        """Adds the attention output and then the feed-forward output to the residual stream."""
        with jax.named_scope("attention"):
            x = constrain(x + self.o_proj(attended), "batch")
        with jax.named_scope("mlp"):
            y = self.ffn_norm(x)
            gate, up = (
                constrain(proj(y), "batch", None, None, "ffn")
                for proj in (self.gate_proj, self.up_proj)
            )
            return constrain(x + self.down_proj(jax.nn.silu(gate) * up), "batch")


class Decoder(nnx.Module):
    """Token embedding, decoder layers, final norm and output head."""

    def __init__(self, network: AudioLMConfig, rngs: nnx.Rngs):
        config = network.decoder
        dtype = network.dtype
        init = nnx.initializers.normal(0.02)
        self.config = config
        self.remat = network.remat
        self.attend = ATTENTION[network.attention]
        self.dtype = jnp.dtype(dtype)
        self.embed = nnx.Embed(
            config.vocabulary, config.width, dtype=self.dtype, embedding_init=init, rngs=rngs
        )
        self.layers = layers.stack(
            lambda rngs: DecoderLayer(config, dtype, rngs), config.layers, rngs
        )
        self.norm = layers.rms_norm(config.width, config.norm_eps, dtype=dtype, rngs=rngs)
        if not config.tied:
            self.head = nnx.Embed(
                config.vocabulary, config.width, dtype=self.dtype, embedding_init=init, rngs=rngs
            )

    def embed_tokens(self, tokens: Int[Array, "B ..."]) -> Float[Array, "B ... E"]:
        """Returns the embeddings of tokens, sharded as their rows of the batch are."""
        return constrain(self.embed(tokens), "batch")

    @property
    def unembedding(self) -> Float[Array, "V E"]:
        return (self.embed if self.config.tied else self.head).embedding[...]

    @jax.named_scope("head")
    def logits(self, hidden: Float[Array, "... E"]) -> Float[Array, "... V"]:
        """Float32 logits of a few positions. Training uses `chunked_logprobs` instead."""
        unembedding = self.unembedding.astype(hidden.dtype)
        return jnp.einsum("...e,ve->...v", hidden, unembedding, preferred_element_type=jnp.float32)

    def _rope(self, positions: Int[Array, "B G T"]) -> tuple[Array, Array]:
        return rotary(positions, self.config.head_dim, self.config.rope_theta)

    def prefill(self, x: Float[Array, "B P E"]) -> tuple[Float[Array, "B P E"], KVCache]:
        """Runs embedded prompts through all layers: returns final hidden states and the prompt cache.

        Prompts are padded on the right. The padding needs no mask, because causal attention never looks ahead.
        """
        size = x.shape[1]
        rope = self._rope(jnp.arange(size)[None, None])

        def body(layer: DecoderLayer, x: Array, _: None) -> tuple[Array, KVCache]:
            q, k, v = layer.qkv(x, rope)
            x = layer.output_and_mlp(x, self.attend(q, (Context(k, v, causal=True),)))
            return x, KVCache(keys=k[:, 0], values=v[:, 0])

        x, prompt_cache = layers.scan(self.layers, body, x[:, None], remat=self.remat)
        return self.norm(x[:, 0]), prompt_cache

    def extend(
        self,
        x: Float[Array, "B P E"],
        lengths: Int[Array, "B"],
        y: Float[Array, "B G T E"],
    ) -> tuple[Float[Array, "B P E"], Float[Array, "B G T E"]]:
        """Runs embedded prompts and their completions through every layer together, for training and scoring.

        In each layer, completions attend to the keys that the same layer computed for their prompt. So no layer's keys
        are stored for another.

        Args:
            x: the prompts.
            lengths: tokens of each prompt without padding.
            y: the completions.

        Returns:
            The final hidden states of the prompts and of the completions.
        """
        p, t = x.shape[1], y.shape[2]
        prompt_rope = self._rope(jnp.arange(p)[None, None])
        completion_rope = self._rope(lengths[:, None, None] + jnp.arange(t))

        def body(layer: DecoderLayer, xy: tuple[Array, Array], _: None) -> tuple:
            x, y = xy
            q, k, v = layer.qkv(x, prompt_rope)
            x = layer.output_and_mlp(x, self.attend(q, (Context(k, v, causal=True),)))
            shared = Context(k[:, 0], v[:, 0], visible=lengths)
            q, k, v = layer.qkv(y, completion_rope)
            y = layer.output_and_mlp(y, self.attend(q, (shared, Context(k, v, causal=True))))
            return (x, y), None

        (x, y), _ = layers.scan(self.layers, body, (x[:, None], y), remat=self.remat)
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
        """Decodes one token of each active completion: the `step`-th after a prompt of `lengths` tokens.

        The linear maps compute the N active rows of each shard. The keys of a prompt are read once, however many of its
        completions are active.

        Args:
            y: the embedded tokens.
            completion_cache: the active rows' keys and values, [L, I, N, K, T, D]. The scan over layers carries it and
                writes it in place at (layer, step). The prompt cache is only read.

        Returns:
            The final hidden states, and the completion cache with this step's keys and values.
        """
        rope = self._rope((rows.from_prompt(lengths)[..., None] + step).astype(jnp.int32))

        def write(buffer: Array, new: Array, layer: Array) -> Array:
            return jax.lax.dynamic_update_slice(
                buffer, new[None].astype(buffer.dtype), (layer, 0, 0, 0, step, 0)
            )

        def body(layer: DecoderLayer, carry: tuple, inputs: tuple) -> tuple:
            y, completion_cache = carry
            index, prompt = inputs
            q, k, v = layer.qkv(y, rope)
            completion_cache = KVCache(
                keys=write(completion_cache.keys, k, index),
                values=write(completion_cache.values, v, index),
            )
            completion = jax.tree.map(
                lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), completion_cache
            )
            attended = _attend_to_caches(
                q,
                rows,
                Context(prompt.keys, prompt.values, visible=lengths),
                Context(completion.keys, completion.values, visible=step + 1),
            )
            y = layer.output_and_mlp(y, attended.astype(y.dtype))
            return (y, completion_cache), None

        indices = jnp.arange(self.config.layers)
        (y, completion_cache), _ = layers.scan(
            self.layers, body, (y[:, :, None], completion_cache), (indices, prompt_cache)
        )
        return self.norm(y[:, :, 0]), completion_cache


def _attend_to_caches(
    q: Float[Array, "I N 1 H D"], rows: ActiveSequences, prompt: Context, completion: Context
) -> Float[Array, "I N 1 H*D"]:
    """Attention of active rows to their prompts' keys and to their own.

    Only the product with the prompts' keys is computed for whole groups, finished completions included.
    """
    grouped = rows.expand(q).reshape(-1, rows.group, *q.shape[2:])
    to_prompt = jax.tree.map(
        lambda x: rows.select(x.reshape(-1, rows.size, *x.shape[2:])),
        partial_attention(grouped, prompt),
    )
    return merge_partials([to_prompt, partial_attention(q, completion)])
