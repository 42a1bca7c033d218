"""Tiny models of each family with random weights, written as hub directories, and prompts; no part needs PyTorch.

What transformers makes of the same is in `theirs`.
"""

import dataclasses
import functools
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from huggingface_hub.serialization import split_state_dict_into_shards_factory
from safetensors.numpy import save_file
from transformers import PretrainedConfig, Qwen2_5OmniThinkerConfig, Qwen2AudioConfig

from sari_jax.hf.config import read_config
from sari_jax.hf.families import FAMILIES
from sari_jax.hf.load import load_params
from sari_jax.hf.names import Names
from sari_jax.hf.shards import INDEX, SINGLE
from sari_jax.models.audio_lm import Params, Prompts, abstract_params
from sari_jax.models.config import Adapter, AudioLMConfig
from sari_jax.models.lora import is_adapter

AUDIO_ID, VOCABULARY = 3, 208
SECOND = 16_000  # samples; the clips are shorter, and so all of them fit a bucket of one second


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What differs between the tiny models.

    Attributes:
        family: the model_type of config.json.
        window: mel frames, where the family has windows.
        vocabulary, audio_id: those of a tokenizer, where there is one.
    """

    family: str = "qwen2_audio"
    window: int = 40
    vocabulary: int = VOCABULARY
    audio_id: int = AUDIO_ID
    mels: int = 80
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 8
    ffn: int = 48
    tied: bool = False
    layers: int = 2
    tower_width: int = 24
    tower_heads: int = 3
    rope_theta: float = 10_000.0


SIZES = {
    "multi_head_80": Sizes(mels=80, heads=4, kv_heads=4, tied=False),
    "grouped_128_tied": Sizes(
        mels=128, heads=6, kv_heads=2, head_dim=6, ffn=40, tied=True, rope_theta=500.0
    ),
    "multi_head_128": Sizes(
        mels=128, heads=2, kv_heads=2, head_dim=16, tower_width=16, tower_heads=4, tied=False
    ),
    "grouped_80_tied": Sizes(mels=80, heads=4, kv_heads=1, head_dim=10, ffn=56, tied=True),
    "omni": Sizes(family="qwen2_5_omni", mels=128, rope_theta=700.0),
    "omni_thinker_tied": Sizes(
        family="qwen2_5_omni_thinker",
        window=20,
        heads=8,
        kv_heads=2,
        head_dim=6,
        tied=True,
        tower_heads=2,
    ),
}


def each_model(*fast: str) -> pytest.MarkDecorator:
    """A test of every tiny model: of those named here always, of the others as a proof."""
    proof = pytest.mark.numerics
    return pytest.mark.parametrize(
        "tiny_model",
        [name if name in fast else pytest.param(name, marks=proof) for name in SIZES],
        indirect=True,
    )


# Omni's, of one layer.
EYES = dict(
    depth=1,
    hidden_size=16,
    intermediate_size=16,
    num_heads=2,
    patch_size=4,
    window_size=8,
    fullatt_block_indexes=[0],
)


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt's expanded ids and its clips."""

    tokens: np.ndarray
    waveforms: tuple[np.ndarray, ...]


@dataclasses.dataclass
class Tiny:
    """One model: its directory, and what we read from it."""

    directory: Path
    sizes: Sizes
    config: AudioLMConfig
    params: Params


def make(directory: Path, sizes: Sizes, seed: int = 0) -> Tiny:
    save(weights(sizes, seed), directory, sizes)
    config = read_config(directory)
    return Tiny(directory, sizes, config, load_params(directory, config))


def adapted(model: Tiny, adapter: Adapter, seed: int = 0) -> Tiny:
    """The model with adapters that are far from nothing: B too is drawn."""
    config = dataclasses.replace(model.config, adapter=adapter)
    flat = dict(traverse_util.flatten_dict(model.params, sep="/"))
    for path, leaf in traverse_util.flatten_dict(abstract_params(config), sep="/").items():
        if is_adapter(path):
            noise = np.random.default_rng([seed, zlib.crc32(path.encode())])
            flat[path] = jnp.asarray(0.1 * noise.standard_normal(leaf.shape), jnp.float32)
    params = traverse_util.unflatten_dict(flat, sep="/")
    return dataclasses.replace(model, config=config, params=params)


def weights(sizes: Sizes, seed: int = 0) -> dict[str, np.ndarray]:
    """Wide enough that logits differ and greedy decoding has something to choose from.

    Models start with norms at one and biases at zero, which would hide that one of them is left out or misplaced: all
    are drawn here. Qwen2-Audio's tied head is stored a second time, as some checkpoints do.
    """
    found = {}
    for name, shape in shapes(sizes).items():
        noise = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape)
        scale = is_norm(name) and name.endswith("weight")
        found[name] = (1 + 0.2 * noise if scale else 0.2 * noise).astype(np.float32)
    names = names_of(sizes)
    if sizes.tied and names.unembedding in found:
        found[names.unembedding] = found[names.embedding]
    return found


def is_norm(name: str) -> bool:
    return "norm" in name.split(".")[-2] or "ln_" in name


def names_of(sizes: Sizes) -> Names:
    """The thinker alone is saved without the prefix that it has as a part of the whole."""
    return FAMILIES[sizes.family].layouts[-1 if sizes.family == "qwen2_5_omni_thinker" else 0]


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Every tensor of the family's directory; `theirs.opened` sees that none is missing and none too many."""
    names, found = names_of(sizes), {}
    width, tower, kv = (
        sizes.heads * sizes.head_dim,
        sizes.tower_width,
        sizes.kv_heads * sizes.head_dim,
    )

    def add(name: str, *shape: int, bias: bool = True) -> None:
        found[f"{name}.weight"] = shape
        if bias:
            found[f"{name}.bias"] = shape[:1]

    add(f"{names.tower}.conv1", tower, sizes.mels, 3)
    add(f"{names.tower}.conv2", tower, tower, 3)
    for i in range(sizes.layers):
        layer = f"{names.tower}.layers.{i}"
        for part in ("q", "k", "v", "out"):
            add(f"{layer}.self_attn.{part}_proj", tower, tower, bias=part != "k")
        add(f"{layer}.fc1", 2 * tower, tower)
        add(f"{layer}.fc2", tower, 2 * tower)
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            add(f"{layer}.{norm}", tower)
    add(names.tower_norm, tower)
    add(names.projector, width, tower)

    add(names.decoder + ".embed_tokens", sizes.vocabulary, width, bias=False)
    for i in range(sizes.layers):
        layer = f"{names.decoder}.layers.{i}"
        for part, size in (("q", width), ("k", kv), ("v", kv)):
            add(f"{layer}.self_attn.{part}_proj", size, width)
        add(f"{layer}.self_attn.o_proj", width, width, bias=False)
        for part in ("gate", "up"):
            add(f"{layer}.mlp.{part}_proj", sizes.ffn, width, bias=False)
        add(f"{layer}.mlp.down_proj", width, sizes.ffn, bias=False)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            add(f"{layer}.{norm}", width, bias=False)
    add(f"{names.decoder}.norm", width, bias=False)

    if sizes.family == "qwen2_audio":
        add(f"{names.tower}.embed_positions", 1500, tower, bias=False)
    else:
        add(f"{names.tower}.audio_bos_eos_token", 2, width, bias=False)
        _add_eyes(add, names.tower.replace("audio_tower", "visual"), width)
    if sizes.family == "qwen2_audio" or not sizes.tied:
        add(names.head, sizes.vocabulary, width, bias=False)
    return found


def _add_eyes(add: Callable[..., None], name: str, width: int) -> None:
    """Those of Omni's thinker, which we carry along unread."""
    block, size = f"{name}.blocks.0", EYES["hidden_size"]
    add(f"{name}.patch_embed.proj", size, 3, 2, EYES["patch_size"], EYES["patch_size"], bias=False)
    for part in ("attn.q", "attn.k", "attn.v", "attn.proj"):
        add(f"{block}.{part}", size, size)
    for part in ("gate_proj", "up_proj", "down_proj"):
        add(f"{block}.mlp.{part}", size, size)
    for norm in (f"{block}.norm1", f"{block}.norm2", f"{name}.merger.ln_q"):
        add(norm, size, bias=False)
    add(f"{name}.merger.mlp.0", 4 * size, 4 * size)
    add(f"{name}.merger.mlp.2", width, 4 * size)


def transformers_config(sizes: Sizes) -> PretrainedConfig:
    if sizes.family == "qwen2_audio":
        return Qwen2AudioConfig(
            audio_config=dict(model_type="qwen2_audio_encoder", **_tower(sizes)),
            text_config=dict(model_type="qwen2", rope_theta=sizes.rope_theta, **_text(sizes)),
            audio_token_index=sizes.audio_id,
            tie_word_embeddings=sizes.tied,
        )
    width, half = sizes.heads * sizes.head_dim, sizes.head_dim // 2
    rope = {
        "rope_type": "default",
        "rope_theta": sizes.rope_theta,
        "mrope_section": [half - 2, 1, 1],
    }
    return Qwen2_5OmniThinkerConfig(
        audio_config=dict(n_window=sizes.window // 2, output_dim=width, **_tower(sizes)),
        vision_config=dict(out_hidden_size=width, **EYES),
        text_config=dict(rope_parameters=rope, **_text(sizes)),
        audio_token_index=sizes.audio_id,
        vision_start_token_id=sizes.vocabulary,
        tie_word_embeddings=sizes.tied,
    )


def _tower(sizes: Sizes) -> dict[str, int]:
    return dict(
        num_mel_bins=sizes.mels,
        d_model=sizes.tower_width,
        encoder_layers=sizes.layers,
        encoder_attention_heads=sizes.tower_heads,
        encoder_ffn_dim=2 * sizes.tower_width,
    )


def _text(sizes: Sizes) -> dict[str, int]:
    return dict(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.heads * sizes.head_dim,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        intermediate_size=sizes.ffn,
        max_position_embeddings=2048,
    )


def save(
    tensors: dict[str, np.ndarray],
    directory: Path,
    sizes: Sizes,
    max_shard_size: int | str = "1GB",
) -> None:
    """As a hub directory: the whole Omni's is its thinker's among tensors and files of the parts that speak."""
    directory.mkdir(parents=True, exist_ok=True)
    config = transformers_config(sizes)
    config.dtype = str(tensors[names_of(sizes).embedding].dtype)
    config.save_pretrained(directory)
    raw = json.loads((directory / "config.json").read_text()) | {"tie_word_embeddings": sizes.tied}
    if sizes.family == "qwen2_5_omni":
        raw = {"model_type": "qwen2_5_omni", "thinker_config": raw, "enable_audio_output": True}
        codec = np.arange(6, dtype=np.float32).reshape(2, 3)
        voice = np.full(5, np.nan, np.float32)
        tensors = tensors | {
            "talker.codec_head.weight": codec,
            "token2wav.bigvgan.conv.bias": voice,
        }
        (directory / "spk_dict.pt").write_bytes(b"voices")
    (directory / "config.json").write_text(json.dumps(raw))
    (directory / "generation_config.json").write_text("{}")
    split = split_state_dict_into_shards_factory(
        tensors,
        get_storage_size=lambda tensor: tensor.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    assert split.is_sharded or list(split.filename_to_tensors) == [SINGLE]
    for file, names in split.filename_to_tensors.items():
        part = {name: tensors[name] for name in names}
        save_file(part, directory / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (directory / INDEX).write_text(json.dumps(index))


def question(clips: Sequence[float], words: int, seed: int = 0) -> Question:
    """A random prompt: `words` text tokens with clips of these seconds among them."""
    rng = np.random.default_rng(seed)
    text = rng.integers(AUDIO_ID + 1, VOCABULARY, words)
    waveforms = tuple(sound(rng, round(seconds * SECOND)) for seconds in clips)
    places = np.sort(rng.choice(np.arange(1, words), len(clips), replace=False))
    parts = np.split(text, places)
    tokens = [parts[0]]
    for waveform, part in zip(waveforms, parts[1:], strict=True):
        frames = (len(waveform) + 159) // 160
        tokens += [np.full(((frames - 1) // 2 + 1) // 2, AUDIO_ID), part]
    return Question(np.concatenate(tokens).astype(np.int32), waveforms)


def sound(rng: np.random.Generator, samples: int) -> np.ndarray:
    """A rising tone in noise."""
    time = np.arange(samples) / SECOND
    tone = np.sin(2 * np.pi * (rng.uniform(100, 900) + 2000 * time) * time)
    return (0.3 * tone + 0.1 * rng.standard_normal(samples)).astype(np.float32)


def ragged() -> list[Question]:
    """One and three clips, of unlike lengths, in prompts of unlike lengths."""
    return [question([0.51], 9, 1), question([0.2, 0.9137, 0.33], 14, 2), question([0.8], 5, 3)]


def answers(lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    """Random text of these lengths, without sound's placeholder: transformers would want a clip for it."""
    rng = np.random.default_rng(seed)
    return [rng.integers(AUDIO_ID + 1, VOCABULARY, n).astype(np.int32) for n in lengths]


def padded(rows: Sequence[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids -> [N, size] ids padded with 0, and a mask of what is real."""
    ids, mask = np.zeros((len(rows), size), np.int32), np.zeros((len(rows), size), bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, True
    return ids, mask


def prompts(
    questions: Sequence[Question], *, samples: int = SECOND, tokens: int = 0, clips: int = 0
) -> Prompts:
    """What a step takes, padded on the right to these sizes or to the largest."""
    b = len(questions)
    p = max(tokens, *(len(q.tokens) for q in questions), 0)
    a = max(clips, *(len(q.waveforms) for q in questions), 1)
    ids = np.zeros((b, p), np.int32)
    lengths, audio_index = np.zeros(b, np.int32), np.full((b, p, 2), -1, np.int32)
    waveforms, sizes = np.zeros((b, a, samples), np.float32), np.zeros((b, a), np.int32)
    for row, q in enumerate(questions):
        ids[row, : len(q.tokens)], lengths[row] = q.tokens, len(q.tokens)
        starts = np.flatnonzero((q.tokens == AUDIO_ID) & (np.roll(q.tokens, 1) != AUDIO_ID))
        for i, (start, waveform) in enumerate(zip(starts, q.waveforms, strict=True)):
            waveforms[row, i, : len(waveform)], sizes[row, i] = waveform, len(waveform)
            count = 0
            while start + count < len(q.tokens) and q.tokens[start + count] == AUDIO_ID:
                audio_index[row, start + count] = i, count
                count += 1
    return jax.device_put(Prompts(ids, lengths, audio_index, waveforms, sizes))


def recording() -> optax.GradientTransformation:
    """An optimizer that changes nothing and keeps the gradient as its state: a step then tells what it computed."""
    zeros = functools.partial(jax.tree.map, jnp.zeros_like)
    return optax.GradientTransformation(
        zeros, lambda gradient, state, params: (zeros(gradient), gradient)
    )


def flatten(params: Params) -> dict[str, np.ndarray]:
    return {path: np.asarray(a) for path, a in traverse_util.flatten_dict(params, sep="/").items()}


def relative_errors(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, float]:
    """Per tensor: the largest difference over the largest element of theirs."""
    assert set(ours) == set(theirs)
    for path, array in theirs.items():
        assert ours[path].shape == array.shape, path
        assert np.abs(array).max() > 0, f"{path}: a gradient of zero shows nothing"
    return {
        path: float(np.abs(ours[path] - array).max() / np.abs(array).max())
        for path, array in theirs.items()
    }


def assert_close(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], tolerance: float
) -> None:
    errors = relative_errors(ours, theirs)
    wrong = {
        path: error
        for path, error in sorted(errors.items(), key=lambda e: -e[1])
        if not error <= tolerance
    }
    assert not wrong, wrong
