"""Where each parameter stands in a Hugging Face checkpoint: the only place with per-layer names.

A rule reads: our path, their name ({} is the layer), and how the axes turn. Theirs are torch's: linear
weights [out, in], convolutions [out, in, width].
"""

from typing import NamedTuple

import numpy as np

from sari_jax.models.config import AudioLMConfig


class Rule(NamedTuple):
    """One parameter of ours and the tensor, or the tensors of all layers, that it is made of.

    `axes` permutes one tensor of theirs into ours.
    """

    path: tuple[str, ...]
    name: str
    axes: tuple[int, ...] = (0,)
    layers: int = 0  # 0: one tensor; else stacked over a leading axis

    @property
    def names(self) -> list[str]:
        return [self.name.format(i) for i in range(self.layers)] if self.layers else [self.name]

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        return tensor.transpose(self.axes) if tensor.ndim > 1 else tensor

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        return array.transpose(np.argsort(self.axes)) if array.ndim > 1 else array


LINEAR, CONVOLUTION, PLAIN = (1, 0), (2, 1, 0), (0, 1)

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


def qwen2_audio_rules(config: AudioLMConfig) -> list[Rule]:
    """Every tensor of a Qwen2-Audio checkpoint, as the hub and `save_pretrained` name them."""
    rules = []

    def add(ours: tuple[str, ...], theirs: str, bias: bool, layers: int = 0, axes=LINEAR) -> None:
        norm = ours[-1].endswith("norm")
        leaf = "scale" if norm else "kernel"
        rules.append(Rule((*ours, leaf), f"{theirs}.weight", PLAIN if norm else axes, layers))
        if bias:
            rules.append(Rule((*ours, "bias"), f"{theirs}.bias", PLAIN, layers))

    for conv in ("conv1", "conv2"):
        add(("tower", conv), f"audio_tower.{conv}", True, axes=CONVOLUTION)
    rules.append(
        Rule(("tower", "positions", "embedding"), "audio_tower.embed_positions.weight", PLAIN)
    )
    for theirs, ours in _TOWER_LAYER.items():
        name = f"audio_tower.layers.{{}}.{theirs}"
        add(("tower", "layers", ours), name, ours != "k_proj", config.encoder.layers)
    add(("tower", "norm"), "audio_tower.layer_norm", True)
    add(("projector",), "multi_modal_projector.linear", True)

    embed = "language_model.model.embed_tokens.weight"
    rules.append(Rule(("decoder", "embed", "embedding"), embed, PLAIN))
    for theirs, ours in _DECODER_LAYER.items():
        name = f"language_model.model.layers.{{}}.{theirs}"
        add(
            ("decoder", "layers", ours),
            name,
            ours in ("q_proj", "k_proj", "v_proj"),
            config.decoder.layers,
        )
    add(("decoder", "norm"), "language_model.model.norm", False)
    if not config.decoder.tied:
        head = "language_model.lm_head.weight"
        rules.append(Rule(("decoder", "head", "embedding"), head, PLAIN))
    return rules
