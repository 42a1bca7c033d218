"""The reference of GRPO: the policy as it was before the first step, in the dtype and memory of the config."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from sari_jax.models.lora import is_adapter
from sari_jax.train.config import Model
from sari_jax.train.optimizer import Flat

KINDS = {"device": "device", "host": "pinned_host"}  # JAX's names of memories


def make_reference(model: Model, trainable: Flat) -> Flat:
    """Copies the trained parameters, except adapters. Frozen parameters are shared with the policy.

    Adapters do nothing before the first step: the reference is the network without them.
    """
    kind = KINDS[model.reference_memory]
    return {
        path: jax.device_put(jnp.copy(x).astype(dtype_of(model)), x.sharding.with_memory_kind(kind))
        for path, x in trainable.items()
        if not is_adapter(path)
    }


@jax.jit
def is_reference(reference: Flat, params: Flat) -> Bool[Array, ""]:
    """Whether a policy's parameters equal the reference's, as they do before anything has moved them.

    Adapters are not in the reference. They do nothing as long as B is zero.
    """
    equal = [jnp.all(params[path] == array) for path, array in reference.items()]
    idle = [~jnp.any(array) for path, array in params.items() if path.endswith("/lora_b")]
    return jnp.all(jnp.stack(equal + idle))


def dtype_of(model: Model) -> str:
    return model.reference_dtype or model.param_dtype


def on_device(flat: Flat) -> Flat:
    """The reference in device memory: a copy, if it is kept in host memory."""
    there = {path: x.sharding.with_memory_kind(KINDS["device"]) for path, x in flat.items()}
    return jax.device_put(flat, there)
