"""What a step changes, and the one update that both stages share."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from sari_jax.parallel.mesh import constrain_parameter
from sari_jax.train.optimizer import Flat

# Metrics of which a batch has the highest of its parts'; the others add up.
HIGHEST = {"sampler_gap"}


@flax.struct.dataclass
class TrainState:
    """Donated to every update.

    Attributes:
        step: steps done; of GRPO with several updates per rollout, rollouts.
        params: trainable parameters, flat by path.
        opt_state: of optax.
    """

    step: Any  # an int32 scalar; as in `params`, Orbax puts other things in the place of arrays for a while
    params: dict[str, Any]
    opt_state: Any


def create_state(params: Flat, optimizer: optax.GradientTransformation) -> TrainState:
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def add_gradient(
    params: Flat,
    loss: Callable[[Flat], tuple[Array, dict[str, Array]]],
    so_far: tuple[dict[str, Array], Flat] | None = None,
) -> tuple[dict[str, Array], Flat]:
    """Metrics and gradient of `loss`, added to those there are."""
    (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    # Else a sum of parts may be laid out whole on every device.
    gradient = {path: constrain_parameter(x, path) for path, x in gradient.items()}
    if so_far is None:
        return metrics, gradient
    before, gradient_before = so_far
    metrics = {
        name: (jnp.maximum if name in HIGHEST else jnp.add)(before[name], value)
        for name, value in metrics.items()
    }
    wide = lambda before, x: before + x.astype(before.dtype)  # noqa: E731
    return metrics, jax.tree.map(wide, gradient_before, gradient)


def nothing(
    params: Flat, loss: Callable[[Flat], tuple[Array, dict[str, Array]]]
) -> tuple[dict[str, Array], Flat]:
    """Metrics and gradient of no rows: where adding up starts."""
    _, metrics = jax.eval_shape(loss, params)
    zeros = {name: jnp.zeros(value.shape, value.dtype) for name, value in metrics.items()}
    # In float32, so that narrow parameters do not round with the split.
    return zeros, {
        path: constrain_parameter(jnp.zeros(x.shape, jnp.float32), path)
        for path, x in params.items()
    }


def apply_gradient(
    state: TrainState,
    optimizer: optax.GradientTransformation,
    loss: Callable[[Flat], tuple[Array, dict[str, Array]]] | None,
    so_far: tuple[dict[str, Array], Flat] | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One step down `loss`, with the norms of parameters, gradient and update beside its metrics.

    Where loss or gradient is not finite nothing but the step number changes, and `skipped` is 1.

    Args:
        loss: of the batch, or of the last of its parts; None where `so_far` is all there is.
        so_far: metrics and gradient of the batch's other parts, to which the loss's are added.
    """
    metrics, gradient = add_gradient(state.params, loss, so_far) if loss else so_far
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
    """Parameters, and an optimizer's arrays of their shapes, laid out over the devices as the parameters came.

    Left to the compiler, an update's results lie as suits that update: the next one is then another program, and a
    run that resumes, which begins with the first, need not find the same bits.
    """
    params = arrays[0]

    def place(where: tuple, x: Array) -> Array:
        paths = [key.key for key in where if isinstance(key, jax.tree_util.DictKey)]
        path = paths[-1] if paths and paths[-1] in params else None
        return constrain_parameter(x, path if path and x.shape == params[path].shape else None)

    return jax.tree_util.tree_map_with_path(place, arrays)
