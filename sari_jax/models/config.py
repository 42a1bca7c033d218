"""Network configs: frozen, hashable, and independent of files and of Hugging Face."""

import dataclasses

from sari_jax.settings import setting


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """A Whisper-family audio encoder followed by average pooling over pairs of frames.

    Attributes:
        seconds: the length of the longest clip. A shorter one is followed by silence.
        window: the number of mel frames in a window, 100 per second. Frames attend only to frames of their window, and
            positions are counted from its start. 0: one window for the whole clip. With windows, frames after a clip's
            end are masked out; without them, they are silence that the tower attends to.
        sinusoids: whether position embeddings are computed (Vaswani et al. 2017) rather than parameters.
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
        """The number of positions, one for each of the 50 frames per second."""
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
        """The factor of A B."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


@dataclasses.dataclass(frozen=True)
class AudioLMConfig:
    """An audio encoder, a linear projector and a language model.

    Attributes:
        dtype: the dtype of activations. Parameters keep the dtype that they are loaded in.
        remat: the activations that the backward pass computes again. "none": nothing; "products": all but the results
            of linear maps; "layer": all but each layer's input.
        attention: the back end of attention everywhere but in single decode steps: see `kernels`.
        quantized: the storage of the decoder's frozen projections: "" for their dtype, or "int8" (`models.quantized`).
        adapter: the adapter, which adds parameters. Without one, the network is the base model. Its dropout needs
            keys beside the parameters (`lora.with_noise`), and is 0 except in the pass that is differentiated.
    """

    encoder: EncoderConfig
    decoder: DecoderConfig
    audio_token_id: int
    dtype: str = "float32"
    remat: str = "none"
    attention: str = "xla"
    adapter: Adapter | None = None
    quantized: str = ""
