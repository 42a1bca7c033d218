"""What a network needs to know of itself: frozen, hashable, free of files and of Hugging Face."""

import dataclasses

from sari_jax.settings import setting


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """A Whisper-family audio encoder followed by average pooling over pairs of frames.

    Attributes:
        seconds: the longest clip. One of exactly this length is all there is; a shorter one is followed by silence.
        window: mel frames, 100 per second, that see each other and are numbered from 0; 0: the whole clip. Within
            windows what follows a clip's end is masked out, and without them it is heard as silence.
        sinusoids: positions are computed (Vaswani et al. 2017) and not parameters.
    """

    mel_bins: int
    width: int
    layers: int
    heads: int
    ffn: int
    seconds: int = 30
    window: int = 0
    sinusoids: bool = False

    @property
    def positions(self) -> int:
        """How many frames, 50 per second, are numbered."""
        return (self.window or 100 * self.seconds) // 2


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
class Adapter:
    """Low-rank adapters (Hu et al. 2021): see `models.lora`."""

    rank: int = setting(0, at_least=0, doc="Rank of A B; 0: no adapters.")
    alpha: float = setting(
        16.0, hint="above 0 with an adapter", doc="A B is scaled by alpha / rank; ours."
    )
    rslora: bool = setting(False, doc="Scale by alpha / sqrt(rank) instead (Kalajdzievski 2023).")
    dropout: float = setting(
        0.0,
        at_least=0,
        below=1,
        doc="Dropout of an adapter's input, only in the pass that is differentiated.",
    )
    targets: tuple[str, ...] = setting(
        ("decoder/layers/*_proj",), doc="Path patterns of the projections that get an adapter."
    )

    @property
    def scale(self) -> float:
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


@dataclasses.dataclass(frozen=True)
class AudioLMConfig:
    """An audio encoder, a linear projector and a language model.

    `dtype` is what activations are computed in; parameters keep the dtype they are loaded in.
    `remat` names what the backward pass computes again: "none"; "products" keeps the results of
    linear maps; "layer" keeps one residual stream per layer and none of the layer's insides.
    `attention` names the back end of everything but single decode steps: see `kernels`.
    `quantized` names how the decoder's frozen projections are kept: "" or "int8" (`models.quantized`).
    `adapter` adds parameters; without it and without them the network is the model as it was. Its dropout wants keys
    beside the parameters (`lora.with_noise`), and is 0 everywhere but in the pass that is differentiated.
    """

    encoder: EncoderConfig
    decoder: DecoderConfig
    audio_token_id: int
    dtype: str = "float32"
    remat: str = "none"
    attention: str = "xla"
    adapter: Adapter | None = None
    quantized: str = ""
