"""What a network needs to know of itself: frozen, hashable, free of files and of Hugging Face."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """A Whisper-family audio encoder followed by average pooling over pairs of frames."""

    mel_bins: int
    width: int
    layers: int
    heads: int
    ffn: int
    max_frames: int = 1500  # 50 per second, before pooling: 30 s


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A Qwen2-family causal language model."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    tied: bool = False


@dataclasses.dataclass(frozen=True)
class AudioLMConfig:
    """An audio encoder, a linear projector and a language model.

    `dtype` is what activations are computed in; parameters keep the dtype they are loaded in.
    `remat` rematerialises every layer in the backward pass, so that a step stores one residual
    stream per layer and not the layer's insides.
    """

    encoder: EncoderConfig
    decoder: DecoderConfig
    audio_token_id: int
    dtype: str = "float32"
    remat: bool = False
