"""What both stacks share: linear maps and norms with this project's defaults, and the scan over layers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

# What is kept of a layer: everything; the results of its linear maps; nothing but what goes in.
REMAT = {
    "none": None,
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "layer": jax.checkpoint_policies.nothing_saveable,
}


class Linear(nnx.Linear):
    """y = x W + b, and with an adapter, which `lora.adapt` gives it, + scale * drop(x) A B.

    With scales, which `quantized.add_scales` gives it, W is Q * kernel_scale.
    """

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
        y = self._scaled(x) if hasattr(self, "kernel_scale") else super().__call__(x)
        if not hasattr(self, "lora_a"):
            return y
        x, a, b = self.promote_dtype((x, self.lora_a[...], self.lora_b[...]), dtype=self.dtype)
        if self.dropout:
            # A key of its own for each call: a layer reads prompts and completions one after the other.
            self.noise[...], key = jax.random.split(self.noise[...])
            heard = jax.random.bernoulli(key, 1 - self.dropout, x.shape)
            x = jnp.where(heard, x / (1 - self.dropout), 0)
        return y + _flat_dot(self.scale * _flat_dot(x, a), b)

    def _scaled(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
        """Q is read as int8 and becomes wide on the way into the product.

        What comes out is rounded to the dtype of activations before the scales multiply it, so that nothing wider is
        kept, sent or differentiated than without them.
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
    """x @ kernel with x's leading axes as one, so that the kernel's gradient too is one plain matrix product."""
    rows = x.reshape(-1, x.shape[-1])
    return jax.lax.dot(rows, kernel, **settings).reshape(*x.shape[:-1], kernel.shape[-1])


def layer_norm(width: int, *, dtype: str, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Two-pass variance: the one-pass form loses digits where mean^2 is far above the variance."""
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
        remat: one of `REMAT`; what of a layer the backward pass finds kept, and what it computes again.
    """
    graphdef, params = nnx.split(layers)

    def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
        layer_params, x = inputs
        return body(nnx.merge(graphdef, layer_params), carry, x)

    if remat != "none":
        step = jax.checkpoint(step, policy=REMAT[remat])
    return jax.lax.scan(step, carry, (params, xs))
