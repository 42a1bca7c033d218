"""What sets one model family apart, as data, and how its config.json is read."""

import dataclasses
import fnmatch
from collections.abc import Callable, Collection
from typing import Any

from sari_jax.errors import InputError
from sari_jax.hf.names import Names
from sari_jax.models.config import DecoderConfig, EncoderConfig

Parts = tuple[EncoderConfig, DecoderConfig, int]


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of model directory, chosen by the model_type of config.json.

    Attributes:
        title: for messages.
        read: config.json's content -> the networks' configs and the id of sound's placeholder. Raises InputError for
            what the networks here do not have; whatever else it raises means a broken file.
        layouts: what the checkpoint calls its parts; there may be several ways, told apart by the embedding's name.
        reference: the transformers class that `sari check` compares with.
        carried: patterns of tensors that are not ours, or computed here: not read, and exported as they were.
        carried_files: files that are exported as they were though they are pickles. They are never opened.
    """

    title: str
    read: Callable[[dict[str, Any]], Parts]
    layouts: tuple[Names, ...]
    reference: str
    carried: tuple[str, ...] = ()
    carried_files: tuple[str, ...] = ()

    def names(self, tensors: Collection[str]) -> Names:
        """How these tensors are called; the first layout where none fits."""
        fitting = [names for names in self.layouts if names.embedding in tensors]
        return (fitting or self.layouts)[0]

    def carries(self, tensor: str) -> bool:
        return any(fnmatch.fnmatchcase(tensor, pattern) for pattern in self.carried)


def encoder_config(audio: Any, **rest: Any) -> EncoderConfig:
    """From transformers' config of a Whisper-like tower."""
    if audio.activation_function != "gelu":
        raise InputError("activations must be gelu (tower) and silu (decoder)")
    return EncoderConfig(
        mel_bins=audio.num_mel_bins,
        width=audio.d_model,
        layers=audio.encoder_layers,
        heads=audio.encoder_attention_heads,
        ffn=audio.encoder_ffn_dim,
        **rest,
    )


def decoder_config(text: Any, *, tied: bool, ropes: tuple[str, ...]) -> DecoderConfig:
    """From transformers' config of a Qwen2 decoder.

    Args:
        ropes: the kinds of rotary positions that come to plain ones here.
    """
    if text.hidden_act != "silu":
        raise InputError("activations must be gelu (tower) and silu (decoder)")
    if text.use_sliding_window or text.rope_parameters.get("rope_type", "default") not in ropes:
        raise InputError("sliding windows and scaled rotary positions are not supported")
    return DecoderConfig(
        vocabulary=text.vocab_size,
        width=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        ffn=text.intermediate_size,
        rope_theta=float(text.rope_parameters["rope_theta"]),
        norm_eps=text.rms_norm_eps,
        tied=tied,
    )
