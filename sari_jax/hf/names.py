"""Names of parameters in Hugging Face checkpoints: the only module with per-layer names.

A rule holds our path, the checkpoint's name ({} is the layer), and the permutation of axes. Checkpoints have PyTorch's
axes: linear weights [out, in], convolutions [out, in, width].
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from sari_jax.models.config import AudioLMConfig


class Rule(NamedTuple):
    """One parameter of ours and the checkpoint's tensor, or the tensors of all layers, that it is made of.

    Attributes:
        path: our path.
        name: the tensor's name, with {} for the layer.
        axes: permutes a tensor's axes into ours.
        layers: the number of layers, which are stacked over a leading axis; 0: one tensor.
    """

    path: tuple[str, ...]
    name: str
    axes: tuple[int, ...] = (0,)
    layers: int = 0

    @property
    def names(self) -> list[str]:
        return [self.name.format(i) for i in range(self.layers)] if self.layers else [self.name]

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        return tensor.transpose(self.axes) if tensor.ndim > 1 else tensor

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        return array.transpose(np.argsort(self.axes)) if array.ndim > 1 else array

    def part(self, index: tuple[slice, ...]) -> tuple[slice, ...]:
        """The slices of a checkpoint's tensor that become these slices of ours."""
        if len(index) == 1:
            return index
        return tuple(index[axis] for axis in np.argsort(self.axes))


@dataclasses.dataclass(frozen=True)
class Names:
    """Names of modules in a checkpoint. Within a layer, names are the same in all Qwen families.

    Attributes:
        tower, tower_norm, projector: the audio encoder, the norm after it, and the linear map after that.
        decoder, head: the language model, and its output matrix if that is not tied to the embedding.
    """

    tower: str
    tower_norm: str
    projector: str
    decoder: str
    head: str

    @property
    def embedding(self) -> str:
        return f"{self.decoder}.embed_tokens.weight"

    @property
    def unembedding(self) -> str:
        return f"{self.head}.weight"

    @property
    def rotary_buffers(self) -> tuple[str, ...]:
        """Patterns of the buffers of rotary positions. Some checkpoints hold them; no version reads them."""
        return (
            f"{self.decoder}.rotary_emb.*inv_freq",
            f"{self.decoder}.layers.*.self_attn.rotary_emb.*inv_freq",
        )


# Permutations of axes.
LINEAR = (1, 0)
CONVOLUTION = (2, 1, 0)
UNCHANGED = (0, 1)

_TOWER_LAYER = {
    "self_attn_layer_norm": "attention_norm",
    "self_attn.q_proj": "q_proj",
    "self_attn.k_proj": "k_proj",
    "self_attn.v_proj": "v_proj",
    "self_attn.out_proj": "o_proj",
    "final_layer_norm": "ffn_norm",
    "fc1": "up_proj",
    "fc2": "down_proj",
}
_DECODER_LAYER = {
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "q_proj",
    "self_attn.k_proj": "k_proj",
    "self_attn.v_proj": "v_proj",
    "self_attn.o_proj": "o_proj",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "gate_proj",
    "mlp.up_proj": "up_proj",
    "mlp.down_proj": "down_proj",
}


def tensor_rules(config: AudioLMConfig, names: Names) -> list[Rule]:
    """One rule for each parameter, with the tensors' names in this layout."""
    found = []

    def add(ours: tuple[str, ...], theirs: str, bias: bool, layers: int = 0, axes=LINEAR) -> None:
        norm = ours[-1].endswith("norm")
        leaf = "scale" if norm else "kernel"
        found.append(Rule((*ours, leaf), f"{theirs}.weight", UNCHANGED if norm else axes, layers))
        if bias:
            found.append(Rule((*ours, "bias"), f"{theirs}.bias", UNCHANGED, layers))

    for conv in ("conv1", "conv2"):
        add(("tower", conv), f"{names.tower}.{conv}", bias=True, axes=CONVOLUTION)
    if not config.encoder.sinusoids:
        positions = f"{names.tower}.embed_positions.weight"
        found.append(Rule(("tower", "positions", "embedding"), positions, UNCHANGED))
    for theirs, ours in _TOWER_LAYER.items():
        name = f"{names.tower}.layers.{{}}.{theirs}"
        add(("tower", "layers", ours), name, bias=ours != "k_proj", layers=config.encoder.layers)
    add(("tower", "norm"), names.tower_norm, bias=True)
    add(("projector",), names.projector, bias=True)

    found.append(Rule(("decoder", "embed", "embedding"), names.embedding, UNCHANGED))
    for theirs, ours in _DECODER_LAYER.items():
        name = f"{names.decoder}.layers.{{}}.{theirs}"
        bias = ours in ("q_proj", "k_proj", "v_proj")
        add(("decoder", "layers", ours), name, bias=bias, layers=config.decoder.layers)
    add(("decoder", "norm"), f"{names.decoder}.norm", bias=False)
    if not config.decoder.tied:
        found.append(Rule(("decoder", "head", "embedding"), names.unembedding, UNCHANGED))
    return found
