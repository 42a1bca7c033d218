"""Attention by libraries' kernels, for devices that have them: splash on TPUs, cuDNN on NVIDIA GPUs.

Both take a group as one row: its G * T queries against all keys of all its contexts side by side. Who sees whom is a
static mask, whose empty blocks splash never computes, and a count of visible keys for each prompt.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jaxtyping import Array, Bool, Float

from sari_jax.errors import InputError
from sari_jax.models.attention import Attend, Context, attend
from sari_jax.parallel.mesh import spec

LANES = 128  # splash takes heads of as many numbers, and sequences of as many places
SPLASH_BLOCK = 512


def require(backend: str, dtype: str, platform: str | None = None) -> None:
    """Raises where a back end that was named cannot run; there is no silent way round.

    Raises:
        InputError: an unknown name, another platform, a dtype that it does not take.
    """
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


def splash_attend(
    queries: Float[Array, "B G T H D"], contexts: tuple[Context, ...], interpret: bool = False
) -> Float[Array, "B G T H*D"]:
    """`attention.attend` by the splash kernel (blockwise softmax, forward and backward) that comes with JAX.

    Args:
        interpret: runs the kernel's operations one by one, on any device.
    """
    b, g, t, h, d = queries.shape
    q, keys, values, mask, visible = _one_row(queries, contexts)
    count, size = mask.shape
    more, wide = [(-n % LANES) for n in (count, size)], -d % LANES
    # What fills up to whole lanes is a segment of its own that sees itself, so that no row is empty.
    mask = np.pad(mask, ((0, more[0]), (0, more[1])), constant_values=True)
    widths = lambda n: ((0, 0), (0, 0), (0, n), (0, wide))  # noqa: E731
    q = jnp.pad(q * d**-0.5, widths(more[0]))
    keys, values = (jnp.pad(x, widths(more[1])) for x in (keys, values))
    segments = splash.SegmentIds(
        jnp.broadcast_to(jnp.arange(count + more[0]) < count, (b, count + more[0])).astype(int),
        jnp.pad(visible, ((0, 0), (0, more[1]))).astype(int),
    )
    run = functools.partial(_splash, mask, interpret)
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty:  # XLA cannot split a kernel by itself: each device gets its rows and heads
        heads, rows = spec("batch", "heads"), spec("batch")
        run = jax.shard_map(
            run, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False
        )
    out = run(q, keys, values, segments)[:, :, :count, :d]
    return out.reshape(b, h, g, t, d).transpose(0, 2, 3, 1, 4).reshape(b, g, t, h * d)


def cudnn_attend(
    queries: Float[Array, "B G T H D"], contexts: tuple[Context, ...], implementation: str = "cudnn"
) -> Float[Array, "B G T H*D"]:
    """`attention.attend` by cuDNN's flash attention, as JAX offers it."""
    b, g, t, h, d = queries.shape
    q, keys, values, mask, visible = _one_row(queries, contexts)
    seen = jnp.asarray(mask)[None, None] & visible[:, None, None]
    q, keys, values = (jnp.swapaxes(x, 1, 2) for x in (q, keys, values))
    out = jax.nn.dot_product_attention(q, keys, values, mask=seen, implementation=implementation)
    return out.reshape(b, g, t, h * d)


def _one_row(
    queries: Float[Array, "B G T H D"], contexts: tuple[Context, ...]
) -> tuple[
    Float[Array, "B H Q D"],
    Float[Array, "B K S D"],
    Float[Array, "B K S D"],
    Bool[np.ndarray, "Q S"],
    Bool[Array, "B S"],
]:
    """Queries, keys and values of whole groups; which query may see which key; which keys there are."""
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
    return (
        queries.transpose(0, 3, 1, 2, 4).reshape(b, h, g * t, d),
        jnp.concatenate(keys, axis=2),
        jnp.concatenate(values, axis=2),
        np.concatenate(masks, axis=1),
        jnp.concatenate(visible, axis=1),
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
