"""The state that a step changes, and the one update that both stages share."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from sari_jax.parallel.mesh import constrain_parameter
from sari_jax.train.optimizer import Flat

Loss = Callable[[Flat], tuple[Array, dict[str, Array]]]  # parameters -> (loss, metrics)
# Metrics that a batch takes as the maximum over its parts; the others are sums.
HIGHEST = {"sampler_gap"}


@flax.struct.dataclass
class TrainState:
    """The state of training, which every update donates.

    Attributes:
        step: the number of steps done; with several updates per rollout, the number of rollouts.
        params: the trainable parameters, flat by path.
        opt_state: the state of the optax optimizer.
    """

    step: Any  # an int32 scalar; as in `params`, Orbax puts other things in the place of arrays for a while
    params: dict[str, Any]
    opt_state: Any


def create_state(params: Flat, optimizer: optax.GradientTransformation) -> TrainState:
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def add_gradient(
    params: Flat, loss: Loss, total: tuple[dict[str, Array], Flat] | None = None
) -> tuple[dict[str, Array], Flat]:
    """Computes the metrics and the gradient of `loss`, and adds them to `total` where it is given."""
    (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    # Otherwise XLA may lay out a sum of parts whole on every device.
    gradient = {path: constrain_parameter(x, path) for path, x in gradient.items()}
    if total is None:
        return metrics, gradient
    metrics_before, gradient_before = total
    metrics = {
        name: (jnp.maximum if name in HIGHEST else jnp.add)(metrics_before[name], value)
        for name, value in metrics.items()
    }

    def add(before: Array, x: Array) -> Array:
        return before + x.astype(before.dtype)

    return metrics, jax.tree.map(add, gradient_before, gradient)


def zero_sum(params: Flat, loss: Loss) -> tuple[dict[str, Array], Flat]:
    """Metrics and gradient of no rows, from which a sum over parts starts."""
    _, metrics = jax.eval_shape(loss, params)
    zeros = {name: jnp.zeros(value.shape, value.dtype) for name, value in metrics.items()}
    # The gradient is in float32, so that narrow parameters do not round with the split.
    return zeros, {
        path: constrain_parameter(jnp.zeros(x.shape, jnp.float32), path)
        for path, x in params.items()
    }


def apply_gradient(
    state: TrainState,
    optimizer: optax.GradientTransformation,
    loss: Loss | None,
    total: tuple[dict[str, Array], Flat] | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """Makes one step down `loss`, and adds the norms of parameters, gradient and update to its metrics.

    If the loss or the gradient is not finite, only the step number changes, and `skipped` is 1.

    Args:
        loss: the loss of the batch, or of the last of its parts; None where `total` holds all parts.
        total: metrics and gradient of the batch's other parts, to which the loss's are added.
    """
    metrics, gradient = add_gradient(state.params, loss, total) if loss else total
    with jax.named_scope("optimizer"):
        gradient = jax.tree.map(lambda x, param: x.astype(param.dtype), gradient, state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        norm = optax.global_norm(gradient)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
        # Chosen on the device: the host need not wait for the answer.
        params, opt_state = in_place(
            jax.tree.map(
                lambda new, old: jnp.where(finite, new, old),
                (optax.apply_updates(state.params, updates), opt_state),
                (state.params, state.opt_state),
            )
        )
        metrics |= {
            "gradient_norm": norm,
            "update_norm": jnp.where(finite, optax.global_norm(updates), 0.0),
            "parameter_norm": optax.global_norm(params),
            "skipped": jnp.where(finite, 0.0, 1.0),
        }
    return TrainState(state.step + 1, params, opt_state), metrics


def in_place(arrays: Any) -> Any:
    """Lays out new parameters, and an optimizer's arrays of their shapes, as the parameters were laid out.

    Without this, XLA chooses output shardings that suit the update. The next step is then another program and compiles
    again, and a resumed run may differ in bits.
    """
    params = arrays[0]

    def place(keys: tuple, x: Array) -> Array:
        paths = [key.key for key in keys if isinstance(key, jax.tree_util.DictKey)]
        path = paths[-1] if paths and paths[-1] in params else None
        return constrain_parameter(x, path if path and x.shape == params[path].shape else None)

    return jax.tree_util.tree_map_with_path(place, arrays)
