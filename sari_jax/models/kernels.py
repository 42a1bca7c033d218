"""Attention by library kernels: splash on TPUs, cuDNN on NVIDIA GPUs.

Both take a group as one row: its G * T queries against the concatenated keys of all its contexts. A static mask and a
count of visible keys for each prompt say which query attends to which key. Splash skips the mask's empty blocks.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jaxtyping import Array, Bool, Float

from sari_jax.errors import InputError
from sari_jax.models.attention import Attend, Context, attend
from sari_jax.models.config import AudioLMConfig
from sari_jax.parallel.mesh import spec

# Splash takes head dimensions and sequence lengths that are multiples of this.
LANES = 128
SPLASH_BLOCK = 512


def require(
    config: AudioLMConfig, *, num_shards: int = 1, decoding: int = 0, platform: str | None = None
) -> None:
    """Raises if the attention back end that `config` names cannot run. There is no silent fallback.

    Args:
        num_shards: devices that share a layer's heads.
        decoding: devices that share a decoder layer's heads during decoding; 0: `num_shards`.
        platform: default the one that JAX runs on.

    Raises:
        InputError: an unknown name, another platform, a dtype that it does not take, or heads that do not divide.
    """
    backend = config.attention
    dtype = config.dtype
    if backend not in ATTENTION:
        raise InputError(
            f"config: model.attention = {backend!r} is unknown; choose {', '.join(ATTENTION)}"
        )
    found = platform or jax.default_backend()
    required = {"splash": "tpu", "cudnn": "gpu"}.get(backend)
    if required and required != found:
        raise InputError(
            f"config: model.attention = {backend!r} needs a {required} and this is a {found}; 'xla' runs everywhere"
        )
    if backend == "cudnn" and dtype != "bfloat16":
        raise InputError(
            f"config: model.attention = 'cudnn' takes bfloat16 and not {dtype}; change model.dtype, or choose 'xla'"
        )
    decoder = {
        "decoder/layers/q_proj: heads": config.decoder.heads,
        "decoder/layers/k_proj: kv_heads": config.decoder.kv_heads,
    }
    tower = {"tower/layers/q_proj: heads": config.encoder.heads}
    _check_heads(tower | decoder, "tensor", num_shards)
    _check_heads(decoder, "decode_tensor", decoding or num_shards)


def num_head_shards(config: AudioLMConfig, devices: int) -> int:
    """The largest number of `devices` that can share every layer's heads evenly."""
    counts = (config.encoder.heads, config.decoder.heads, config.decoder.kv_heads)
    return math.gcd(devices, *counts)


def _check_heads(heads: dict[str, int], axis: str, num_shards: int) -> None:
    common = math.gcd(*heads.values())
    for name, count in heads.items():
        if count % num_shards:
            fit = [n for n in range(1, common + 1) if common % n == 0]
            raise InputError(
                f"config: {name} = {count} do not divide by mesh.{axis} = {num_shards}; choose of {fit}"
            )


@jax.named_scope("attention")
def splash_attend(
    queries: Float[Array, "B G T H D"], contexts: tuple[Context, ...], interpret: bool = False
) -> Float[Array, "B G T H*D"]:
    """`attention.attend` by the splash kernel (blockwise softmax, forward and backward) that comes with JAX.

    Args:
        interpret: runs the kernel's operations one by one, on any device.
    """
    b, g, t, h, d = queries.shape
    q, keys, values, mask, visible = _flatten_groups(queries, contexts, LANES)
    q, keys, values = (
        jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, -d % LANES))) for x in (q * d**-0.5, keys, values)
    )
    # Padding, of queries and of keys, is a segment of its own.
    real = jnp.broadcast_to(jnp.arange(len(mask)) < g * t, (b, len(mask)))
    segments = splash.SegmentIds(real.astype(int), visible.astype(int))
    run = functools.partial(_splash, mask, interpret)
    mesh = jax.sharding.get_abstract_mesh()
    # XLA cannot partition a kernel by itself, so shard_map gives each device its rows and heads.
    if not mesh.empty:
        heads = spec("batch", "heads")
        rows = spec("batch")
        run = jax.shard_map(
            run, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False
        )
    out = run(q, keys, values, segments)[:, :, : g * t, :d]
    return out.reshape(b, h, g, t, d).transpose(0, 2, 3, 1, 4).reshape(b, g, t, h * d)


@jax.named_scope("attention")
def cudnn_attend(
    queries: Float[Array, "B G T H D"], contexts: tuple[Context, ...], implementation: str = "cudnn"
) -> Float[Array, "B G T H*D"]:
    """`attention.attend` by cuDNN's flash attention in JAX, which takes the mask as a bias [B, 1, G * T, S]."""
    b, g, t, h, d = queries.shape
    # cuDNN's gradient takes even lengths only.
    q, keys, values, mask, visible = _flatten_groups(queries, contexts, 2)
    seen = jnp.asarray(mask)[None, None] & visible[:, None, None]
    q, keys, values = (jnp.swapaxes(x, 1, 2) for x in (q, keys, values))
    out = jax.nn.dot_product_attention(q, keys, values, mask=seen, implementation=implementation)
    return out[:, : g * t].reshape(b, g, t, h * d)


def _flatten_groups(
    queries: Float[Array, "B G T H D"], contexts: tuple[Context, ...], multiple: int
) -> tuple[
    Float[Array, "B H Q D"],
    Float[Array, "B K S D"],
    Float[Array, "B K S D"],
    Bool[np.ndarray, "Q S"],
    Bool[Array, "B S"],
]:
    """Each group as one row: queries, keys, values, the mask, and the visible keys.

    Q = G * T and S, the keys of all contexts, are padded to a multiple. No query attends to padded keys. Padded queries
    may attend to all others.
    """
    b, g, t, h, d = queries.shape
    group, position = np.divmod(np.arange(g * t), t)
    keys, values, masks, visible = [], [], [], []
    for context in contexts:
        shared = context.keys.ndim == 4
        size = context.keys.shape[-2]
        for parts, x in ((keys, context.keys), (values, context.values)):
            x = x if shared else jnp.swapaxes(x, 1, 2).reshape(b, x.shape[2], g * size, d)
            parts.append(x)
        key_group, key_position = np.divmod(np.arange(size if shared else g * size), size)
        mask = np.ones((g * t, len(key_position)), bool)
        if not shared:
            mask = group[:, None] == key_group
        masks.append(mask & (position[:, None] >= key_position) if context.causal else mask)
        limit = size if context.visible is None else context.visible
        visible.append(jnp.asarray(key_position) < jnp.broadcast_to(limit, (b,))[:, None])
    q = queries.transpose(0, 3, 1, 2, 4).reshape(b, h, g * t, d)
    mask = np.concatenate(masks, axis=1)
    pad_queries, pad_keys = (-size % multiple for size in mask.shape)
    return (
        _pad_positions(q, pad_queries),
        _pad_positions(jnp.concatenate(keys, axis=2), pad_keys),
        _pad_positions(jnp.concatenate(values, axis=2), pad_keys),
        np.pad(mask, ((0, pad_queries), (0, pad_keys)), constant_values=True),
        jnp.pad(jnp.concatenate(visible, axis=1), ((0, 0), (0, pad_keys))),
    )


def _pad_positions(x: Float[Array, "B H S D"], count: int) -> Float[Array, "B H S2 D"]:
    return jnp.pad(x, ((0, 0), (0, 0), (0, count), (0, 0)))


def _splash(
    mask: np.ndarray, interpret: bool, q: Array, keys: Array, values: Array, segments: tuple
) -> Array:
    heads = splash.splash_attention_mask.MultiHeadMask(
        [splash.splash_attention_mask.NumpyMask(mask)] * q.shape[1]
    )
    rows, columns = (_block(size) for size in mask.shape)
    sizes = splash.BlockSizes(
        block_q=rows,
        block_kv=columns,
        block_kv_compute=columns,
        block_q_dkv=rows,
        block_kv_dkv=columns,
        block_kv_dkv_compute=columns,
        block_q_dq=rows,
        block_kv_dq=columns,
    )
    kernel = splash.make_splash_mha(
        heads, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret
    )
    return jax.vmap(kernel)(q, keys, values, segments)


def _block(size: int) -> int:
    """The largest multiple of LANES, up to SPLASH_BLOCK, that divides `size`."""
    return max(n for n in range(LANES, SPLASH_BLOCK + 1, LANES) if size % n == 0)


ATTENTION: dict[str, Attend] = {"xla": attend, "splash": splash_attend, "cudnn": cudnn_attend}
