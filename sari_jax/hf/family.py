"""Model families as data: how to read their config.json, and the names and files of their checkpoints."""

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
        title: the name in messages.
        read: config.json's content -> the networks' configs and the id of the audio token. It raises InputError for
            features that are not supported. Any other error means that the file is broken.
        layouts: the names of the checkpoint's tensors. If there are several, the embedding's name decides.
        reference: the transformers class that `sari check` compares with.
        carried: patterns of tensors that are not used, or are computed here. They are not read; exports copy them.
        carried_files: pickles that exports copy. They are never opened.
    """

    title: str
    read: Callable[[dict[str, Any]], Parts]
    layouts: tuple[Names, ...]
    reference: str
    carried: tuple[str, ...] = ()
    carried_files: tuple[str, ...] = ()

    def names(self, tensors: Collection[str]) -> Names:
        """The layout that these tensors' names follow; the first layout if they follow none."""
        matching = [names for names in self.layouts if names.embedding in tensors]
        return (matching or self.layouts)[0]

    def carries(self, tensor: str) -> bool:
        """Whether the tensor is not read, only copied by exports."""
        return any(fnmatch.fnmatchcase(tensor, pattern) for pattern in self.carried)


def encoder_config(audio: Any, **rest: Any) -> EncoderConfig:
    """Converts transformers' config of a Whisper-like tower."""
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
    """Converts transformers' config of a Qwen2 decoder.

    Args:
        ropes: the kinds of rotary positions that equal plain ones for audio and text.
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
