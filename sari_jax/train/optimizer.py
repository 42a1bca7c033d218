"""The optimizer, and the split of parameters into trainable and frozen ones."""

import dataclasses
import fnmatch
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from flax import traverse_util
from jaxtyping import Array, Float

from sari_jax.errors import InputError
from sari_jax.models.audio_lm import Params
from sari_jax.train.config import Optimizer

Flat = dict[str, Array]
MATRICES = ("kernel", "lora_a", "lora_b")


def partition(params: Params, patterns: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits nested parameters, or their shapes, into (trainable, frozen).

    Both are flat, by paths such as "decoder/layers/q_proj/kernel".

    Raises:
        InputError: a pattern that matches nothing.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    for pattern in patterns:
        if not fnmatch.filter(flat, pattern):
            raise InputError(
                f"config: model.trainable pattern {pattern!r} matches no parameter;"
                f" paths look like {sorted(flat)[0]!r}"
            )
    chosen = {path for pattern in patterns for path in fnmatch.filter(flat, pattern)}
    return (
        {path: flat[path] for path in flat if path in chosen},
        {path: flat[path] for path in flat if path not in chosen},
    )


def merge(trainable: dict[str, Any], frozen: dict[str, Any]) -> Params:
    """The inverse of `partition`; no array is copied."""
    return traverse_util.unflatten_dict({**frozen, **trainable}, sep="/")


def learning_rates(settings: Optimizer, steps: int) -> optax.Schedule:
    """Linear warm-up, then constant or a cosine down to a tenth."""
    peak, warmup = settings.learning_rate, settings.warmup_steps
    rest = (
        optax.cosine_decay_schedule(peak, max(steps - warmup, 1), alpha=0.1)
        if settings.schedule == "cosine"
        else optax.constant_schedule(peak)
    )
    return optax.join_schedules([optax.linear_schedule(0.0, peak, max(warmup, 1)), rest], [warmup])


@functools.cache  # runs of one process with the same settings then share their jitted updates
def make_optimizer(settings: Optimizer, steps: int) -> optax.GradientTransformation:
    """AdamW or Muon on globally clipped gradients; norms and biases are not decayed.

    Muon (Jordan et al. 2024) makes each matrix's update orthogonal. Its updates are brought to the size of AdamW's
    (Liu et al. 2025, "Muon is Scalable for LLM Training"), so that one learning rate serves both; embeddings, norms
    and biases go by Adam with Nesterov momentum. Each layer of a stack is a matrix of its own.

    The peak rate is a number of the state and not of the program: runs that differ in it alone are one program.
    """
    schedule = learning_rates(dataclasses.replace(settings, learning_rate=1.0), steps)
    if settings.name == "adamw":
        descend = optax.adamw(
            schedule,
            b1=settings.b1,
            b2=settings.b2,
            weight_decay=settings.weight_decay,
            mask=lambda flat: {path: path.endswith((*MATRICES, "embedding")) for path in flat},
        )
    else:
        descend = optax.contrib.muon(
            schedule,
            weight_decay=settings.weight_decay,
            consistent_rms=0.2,
            adam_b1=settings.b1,
            adam_b2=settings.b2,
            muon_weight_dimension_numbers=_matrices,
        )
    descend = kept_as(settings.moments_dtype, descend)
    clip = optax.clip_by_global_norm(settings.clip_norm)
    return times(settings.learning_rate, optax.chain(clip, descend))


class Rated(NamedTuple):
    """The state of an optimizer whose updates are multiplied by a rate.

    Attributes:
        kept: the state of the optimizer at rate 1, which a checkpoint holds.
        rate: a setting, which a checkpoint does not hold.
    """

    kept: Any
    rate: Float[Array, ""]


def times(rate: float, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Multiplies updates by a rate that the state holds. AdamW's and Muon's updates, decay included, are linear in it.

    `optax.inject_hyperparams` is not used: it would put the rate into checkpoints, where a resumed run must not find
    an old one.
    """

    def update(gradient: Any, state: Rated, params: Any = None) -> tuple[Any, Rated]:
        updates, kept = optimizer.update(gradient, state.kept, params)
        updates = jax.tree.map(lambda x: (x * state.rate).astype(x.dtype), updates)
        return updates, Rated(kept, state.rate)

    return optax.GradientTransformation(
        lambda params: Rated(optimizer.init(params), jnp.float32(rate)), update
    )


def kept_as(dtype: str, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same optimizer with moments kept in `dtype` and updated in float32.

    It narrows both moments; optax's own `mu_dtype` narrows the first one only. In bfloat16 a second moment that should
    move by less than 1/256 of itself does not move. At b2 = 0.95 it moves by a twentieth.
    """
    if dtype == "float32":
        return optimizer

    def moments(state: Any, to: str) -> Any:
        def cast(x: Array) -> Array:
            is_moment = jnp.issubdtype(x.dtype, jnp.floating) and x.ndim > 0
            return x.astype(to) if is_moment else x

        return jax.tree.map(cast, state)

    def update(gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = optimizer.update(gradient, moments(state, "float32"), params)
        return updates, moments(state, dtype)

    return optax.GradientTransformation(
        lambda params: moments(optimizer.init(params), dtype), update
    )


def _matrices(flat: dict[str, Any]) -> dict[str, optax.contrib.MuonDimensionNumbers | None]:
    """The axes of each parameter that form a matrix; None if it is no matrix. Leading axes count layers.

    The values are parameters, or optax's marks where it has masked them out.
    """
    matrix = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    return {
        path: matrix if path.endswith(MATRICES) and "/conv" not in path else None for path in flat
    }
