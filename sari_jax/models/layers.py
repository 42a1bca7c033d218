"""Layers of both the audio tower and the decoder: linear maps, norms, and the scan over stacked layers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

# What the backward pass finds stored of a layer: everything; the results of its linear maps; only its input.
REMAT = {
    "none": None,
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "layer": jax.checkpoint_policies.nothing_saveable,
}


class Linear(nnx.Linear):
    """y = x W + b.

    With an adapter, which `lora.add_adapters` adds, y = x W + b + scale * dropout(x) A B.
    With scales, which `quantized.add_scales` adds, W = Q * kernel_scale.
    """

    def __init__(self, inputs: int, outputs: int, **settings: Any):
        super().__init__(inputs, outputs, **settings)
        self.kernel_scale: nnx.Param | None = nnx.data(None)
        self.lora_a: nnx.Param | None = nnx.data(None)
        self.lora_b: nnx.Param | None = nnx.data(None)

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
        y = super().__call__(x) if self.kernel_scale is None else self._quantized(x)
        return y if self.lora_a is None else y + self._adapter(x)

    def _adapter(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
        x, a, b = self.promote_dtype((x, self.lora_a[...], self.lora_b[...]), dtype=self.dtype)
        if self.dropout:
            # Each call needs another key: a layer is called for prompts and then for completions.
            self.noise[...], key = jax.random.split(self.noise[...])
            kept = jax.random.bernoulli(key, 1 - self.dropout, x.shape)
            x = jnp.where(kept, x / (1 - self.dropout), 0)
        return _flat_dot(self.scale * _flat_dot(x, a), b)

    def _quantized(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
        """Reads Q as int8 and casts it to the dtype of activations inside the product.

        The product is rounded to that dtype before the scales multiply it. So nothing wider is stored, sent or
        differentiated than without quantization.
        """
        y = _flat_dot(x.astype(self.dtype), self.kernel[...].astype(self.dtype))
        y = y.astype(jnp.float32) * self.kernel_scale[...]
        if self.bias is not None:
            y = y + self.bias[...]
        return y.astype(self.dtype)


def linear(inputs: int, outputs: int, *, bias: bool, dtype: str, rngs: nnx.Rngs) -> Linear:
    """[..., inputs] -> [..., outputs], initialised as the Qwen family is: normal, std 0.02."""
    return Linear(
        inputs,
        outputs,
        use_bias=bias,
        dtype=jnp.dtype(dtype),
        kernel_init=nnx.initializers.normal(0.02),
        dot_general=_flat_dot,
        rngs=rngs,
    )


def _flat_dot(x: Array, kernel: Array, dimension_numbers: Any = None, **settings: Any) -> Array:
    """x @ kernel with x's leading axes flattened, so that the kernel's gradient is one matrix product too."""
    rows = x.reshape(-1, x.shape[-1])
    return jax.lax.dot(rows, kernel, **settings).reshape(*x.shape[:-1], kernel.shape[-1])


def layer_norm(width: int, *, dtype: str, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer norm with a two-pass variance: the one-pass form loses digits where mean^2 is far above the variance."""
    return nnx.LayerNorm(
        width, epsilon=1e-5, dtype=jnp.dtype(dtype), use_fast_variance=False, rngs=rngs
    )


def rms_norm(width: int, eps: float, *, dtype: str, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(
        width, epsilon=eps, dtype=jnp.dtype(dtype), use_fast_variance=False, rngs=rngs
    )


def stack(layer: Callable[[nnx.Rngs], nnx.Module], count: int, rngs: nnx.Rngs) -> nnx.Module:
    """One module whose every parameter has a leading axis of `count` layers."""

    @nnx.split_rngs(splits=count)
    @nnx.vmap(in_axes=0)
    def create(rngs: nnx.Rngs) -> nnx.Module:
        return layer(rngs)

    return create(rngs)


def scan(
    layers: nnx.Module,
    body: Callable[[nnx.Module, Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any = None,
    *,
    remat: str = "none",
) -> tuple[Any, Any]:
    """Runs `body(layer, carry, x) -> (carry, y)` through stacked layers, compiled once for all.

    Args:
        remat: one of `REMAT`: what of a layer is stored for the backward pass. The rest is computed again.
    """
    graphdef, params = nnx.split(layers)

    def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
        layer_params, x = inputs
        return body(nnx.merge(graphdef, layer_params), carry, x)

    if remat != "none":
        step = jax.checkpoint(step, policy=REMAT[remat])
    return jax.lax.scan(step, carry, (params, xs))
