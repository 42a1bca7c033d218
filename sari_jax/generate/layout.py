"""The policy as decoding takes it: narrowed and laid out once per step, so that no token gathers weights."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.sharding import Mesh
from jaxtyping import Array

from sari_jax.models.audio_lm import Params
from sari_jax.models.config import AudioLMConfig
from sari_jax.parallel.mesh import DECODE_RULES, parameter_shardings

# What the networks narrow to their dtype before they multiply.
MATRICES = ("kernel", "embedding", "lora_a", "lora_b")


class DecodingPolicy:
    """Flat parameters, as they are trained -> projector and decoder for `rollout`, over a mesh of `decoding_mesh`.

    The tower is left behind: it encodes in the layout of training, and its output comes along. Matrices are narrowed
    to the dtype of activations, as every product with them would do; so decoding reads half the bytes.
    """

    def __init__(self, config: AudioLMConfig, mesh: Mesh):
        self.dtype, self.mesh = config.dtype, mesh
        self._programs: dict[tuple[str, ...], Any] = {}

    def program(self, flat: dict[str, Any]) -> Any:
        """The jitted program for these parameters, or their shapes."""
        paths = tuple(flat)
        if paths not in self._programs:  # a function that is jitted anew is compiled anew
            placed = parameter_shardings(self.mesh, flat, DECODE_RULES)
            self._programs[paths] = jax.jit(self._narrowed, out_shardings=placed)
        return self._programs[paths]

    def __call__(self, flat: dict[str, Array]) -> Params:
        flat = self.needed(flat)
        changing = self.changing(flat)
        moved = self.program(changing)(changing) if changing else {}
        return traverse_util.unflatten_dict(flat | moved, sep="/")

    def changing(self, flat: dict[str, Any]) -> dict[str, Any]:
        """Those that lie elsewhere or are wider than decoding takes them: of a frozen narrow model on one chip none."""
        wanted = parameter_shardings(self.mesh, flat, DECODE_RULES)
        return {
            path: array
            for path, array in flat.items()
            if not array.sharding.is_equivalent_to(wanted[path], array.ndim)
            or (_narrows(path, array) and array.dtype != self.dtype)
        }

    def shapes(self, flat: dict[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
        """What comes out, for shapes: where nothing is computed."""
        placed = parameter_shardings(self.mesh, flat, DECODE_RULES)
        return {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed[path])
            for path, leaf in jax.eval_shape(self._narrowed, flat).items()
        }

    @staticmethod
    def needed(flat: dict[str, Any]) -> dict[str, Any]:
        return {path: leaf for path, leaf in flat.items() if not path.startswith("tower/")}

    def _narrowed(self, flat: dict[str, Array]) -> dict[str, Array]:
        return {
            path: array.astype(self.dtype) if _narrows(path, array) else array
            for path, array in flat.items()
        }


def _narrows(path: str, array: Any) -> bool:
    """Whether it is a matrix of floating-point numbers; int8 stays as it is."""
    return path.endswith(MATRICES) and jnp.issubdtype(array.dtype, jnp.floating)
