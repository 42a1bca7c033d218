"""Attention by libraries' kernels, for devices that have them: splash on TPUs, cuDNN on NVIDIA GPUs.

Both take a group as one row: its G * T queries against all keys of all its contexts side by side. Who sees whom is a
static mask, whose empty blocks splash never computes, and a count of visible keys for each prompt.
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

LANES = 128  # splash takes heads of as many numbers, and sequences of as many places
SPLASH_BLOCK = 512


def require(
    config: AudioLMConfig, *, num_shards: int = 1, decoding: int = 0, platform: str | None = None
) -> None:
    """Raises where the back end that `config` names cannot run; there is no silent way round.

    Args:
        num_shards: how many devices share a layer's heads.
        decoding: how many do while completions are decoded, which the tower has no part in; 0: as many.

    Raises:
        InputError: an unknown name, another platform, a dtype that it does not take, heads that do not divide.
    """
    backend, dtype = config.attention, config.dtype
    if backend not in ATTENTION:
        raise InputError(
            f"config: model.attention = {backend!r} is unknown; choose {', '.join(ATTENTION)}"
        )
    here, needs = platform or jax.default_backend(), {"splash": "tpu", "cudnn": "gpu"}.get(backend)
    if needs and needs != here:
        raise InputError(
            f"config: model.attention = {backend!r} needs a {needs} and this is a {here}; 'xla' runs everywhere"
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
    _divide(tower | decoder, "tensor", num_shards)
    _divide(decoder, "decode_tensor", decoding or num_shards)


def num_head_shards(config: AudioLMConfig, devices: int) -> int:
    """The most of `devices` that can share every layer's heads evenly."""
    counts = (config.encoder.heads, config.decoder.heads, config.decoder.kv_heads)
    return math.gcd(devices, *counts)


def _divide(heads: dict[str, int], axis: str, num_shards: int) -> None:
    common = math.gcd(*heads.values())
    for name, count in heads.items():
        if count % num_shards:
            fit = [n for n in range(1, common + 1) if common % n == 0]
            raise InputError(
                f"config: {name} = {count} do not divide by mesh.{axis} = {num_shards}; choose of {fit}"
            )


def splash_attend(
    queries: Float[Array, "B G T H D"], contexts: tuple[Context, ...], interpret: bool = False
) -> Float[Array, "B G T H*D"]:
    """`attention.attend` by the splash kernel (blockwise softmax, forward and backward) that comes with JAX.

    Args:
        interpret: runs the kernel's operations one by one, on any device.
    """
    b, g, t, h, d = queries.shape
    q, keys, values, mask, visible = _one_row(queries, contexts, LANES)
    q, keys, values = (
        jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, -d % LANES))) for x in (q * d**-0.5, keys, values)
    )
    # Queries and keys that fill up are a segment of their own.
    real = jnp.broadcast_to(jnp.arange(len(mask)) < g * t, (b, len(mask)))
    segments = splash.SegmentIds(real.astype(int), visible.astype(int))
    run = functools.partial(_splash, mask, interpret)
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty:  # XLA cannot split a kernel by itself: each device gets its rows and heads
        heads, rows = spec("batch", "heads"), spec("batch")
        run = jax.shard_map(
            run, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False
        )
    out = run(q, keys, values, segments)[:, :, : g * t, :d]
    return out.reshape(b, h, g, t, d).transpose(0, 2, 3, 1, 4).reshape(b, g, t, h * d)


def cudnn_attend(
    queries: Float[Array, "B G T H D"], contexts: tuple[Context, ...], implementation: str = "cudnn"
) -> Float[Array, "B G T H*D"]:
    """`attention.attend` by cuDNN's flash attention, as JAX offers it: the mask is a bias, [B, 1, G * T, S] of it."""
    b, g, t, h, d = queries.shape
    q, keys, values, mask, visible = _one_row(queries, contexts, 2)  # what cuDNN's gradient takes
    seen = jnp.asarray(mask)[None, None] & visible[:, None, None]
    q, keys, values = (jnp.swapaxes(x, 1, 2) for x in (q, keys, values))
    out = jax.nn.dot_product_attention(q, keys, values, mask=seen, implementation=implementation)
    return out[:, : g * t].reshape(b, g, t, h * d)


def _one_row(
    queries: Float[Array, "B G T H D"], contexts: tuple[Context, ...], multiple: int
) -> tuple[
    Float[Array, "B H Q D"],
    Float[Array, "B K S D"],
    Float[Array, "B K S D"],
    Bool[np.ndarray, "Q S"],
    Bool[Array, "B S"],
]:
    """Queries, keys and values of whole groups; which query may see which key; which keys there are.

    Q and S are filled up to a multiple. Nobody sees the keys that fill up, and the queries may see all others.
    """
    b, g, t, h, d = queries.shape
    keys, values, masks, visible = [], [], [], []
    group, place = np.divmod(np.arange(g * t), t)
    for context in contexts:
        shared = context.keys.ndim == 4
        size = context.keys.shape[-2]
        for parts, x in ((keys, context.keys), (values, context.values)):
            x = x if shared else jnp.swapaxes(x, 1, 2).reshape(b, x.shape[2], g * size, d)
            parts.append(x)
        whose, where = np.divmod(np.arange(size if shared else g * size), size)
        mask = np.ones((g * t, len(where)), bool) if shared else group[:, None] == whose
        masks.append(mask & (place[:, None] >= where) if context.causal else mask)
        limit = size if context.visible is None else context.visible
        here = jnp.asarray(where) < jnp.broadcast_to(limit, (b,))[:, None]
        visible.append(here)
    q = queries.transpose(0, 3, 1, 2, 4).reshape(b, h, g * t, d)
    mask, there = np.concatenate(masks, axis=1), jnp.concatenate(visible, axis=1)
    more, wider = (-size % multiple for size in mask.shape)
    longer = lambda x, by: jnp.pad(x, ((0, 0), (0, 0), (0, by), (0, 0)))  # noqa: E731
    return (
        longer(q, more),
        *(longer(jnp.concatenate(x, axis=2), wider) for x in (keys, values)),
        np.pad(mask, ((0, more), (0, wider)), constant_values=True),
        jnp.pad(there, ((0, 0), (0, wider))),
    )


def _splash(
    mask: np.ndarray, interpret: bool, q: Array, keys: Array, values: Array, segments: tuple
) -> Array:
    heads = splash.splash_attention_mask.MultiHeadMask(
        [splash.splash_attention_mask.NumpyMask(mask)] * q.shape[1]
    )
    rows, columns = (_block(size) for size in mask.shape)
    sizes = splash.BlockSizes(
        block_q=rows, block_kv=columns, block_kv_compute=columns,
        block_q_dkv=rows, block_kv_dkv=columns, block_kv_dkv_compute=columns,
        block_q_dq=rows, block_kv_dq=columns,
    )  # fmt: skip
    kernel = splash.make_splash_mha(
        heads, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret
    )
    return jax.vmap(kernel)(q, keys, values, segments)


def _block(size: int) -> int:
    """The largest block of whole lanes that divides `size`."""
    return max(n for n in range(LANES, SPLASH_BLOCK + 1, LANES) if size % n == 0)


ATTENTION: dict[str, Attend] = {"xla": attend, "splash": splash_attend, "cudnn": cudnn_attend}
