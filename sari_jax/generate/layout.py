"""Parameters for decoding: narrowed and resharded once per step, so that no decoded token gathers weights."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.sharding import Mesh
from jaxtyping import Array

from sari_jax.models.audio_lm import Params
from sari_jax.models.config import AudioLMConfig
from sari_jax.parallel.mesh import DECODE_RULES, parameter_shardings

# Parameters that the networks cast to the dtype of activations before they multiply.
NARROWED = ("kernel", "embedding", "lora_a", "lora_b")


class DecodingPolicy:
    """Converts trained parameters, flat by path, to projector and decoder for `rollout` over `decoding_mesh`.

    The tower is left out: it encodes with its training shardings, and `rollout` takes its features. Matrices are cast
    to the dtype of activations, as each product with them would do. So decoding in bfloat16 reads half the bytes.
    """

    def __init__(self, config: AudioLMConfig, mesh: Mesh):
        self.dtype = config.dtype
        self.mesh = mesh
        self._programs: dict[tuple[str, ...], Any] = {}

    def program(self, flat: dict[str, Any]) -> Any:
        """The jitted program for these parameters, or their shapes."""
        paths = tuple(flat)
        # Another call of jax.jit would compile the program again.
        if paths not in self._programs:
            shardings = parameter_shardings(self.mesh, flat, DECODE_RULES)
            self._programs[paths] = jax.jit(self._narrowed, out_shardings=shardings)
        return self._programs[paths]

    def __call__(self, flat: dict[str, Array]) -> Params:
        flat = self.needed(flat)
        changing = self.changing(flat)
        changed = self.program(changing)(changing) if changing else {}
        return traverse_util.unflatten_dict(flat | changed, sep="/")

    def changing(self, flat: dict[str, Any]) -> dict[str, Any]:
        """The parameters whose sharding or dtype differs from that of decoding.

        A frozen model in a narrow dtype on one chip has none.
        """
        shardings = parameter_shardings(self.mesh, flat, DECODE_RULES)
        return {
            path: array
            for path, array in flat.items()
            if not array.sharding.is_equivalent_to(shardings[path], array.ndim)
            or (_narrows(path, array) and array.dtype != self.dtype)
        }

    def shapes(self, flat: dict[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes, dtypes and shardings of the converted parameters. Nothing is computed."""
        shardings = parameter_shardings(self.mesh, flat, DECODE_RULES)
        return {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=shardings[path])
            for path, leaf in jax.eval_shape(self._narrowed, flat).items()
        }

    @staticmethod
    def needed(flat: dict[str, Any]) -> dict[str, Any]:
        """The parameters without those of the tower."""
        return {path: leaf for path, leaf in flat.items() if not path.startswith("tower/")}

    def _narrowed(self, flat: dict[str, Array]) -> dict[str, Array]:
        return {
            path: array.astype(self.dtype) if _narrows(path, array) else array
            for path, array in flat.items()
        }


def _narrows(path: str, array: Any) -> bool:
    """Whether the parameter is cast: a matrix of floating-point numbers. int8 stays int8."""
    return path.endswith(NARROWED) and jnp.issubdtype(array.dtype, jnp.floating)
