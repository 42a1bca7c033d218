"""Tiny models of each family with random weights, made by transformers, and the same prompts in both forms."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import traverse_util
from safetensors.torch import load_file, save_file
from transformers import (
    PreTrainedModel,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    WhisperFeatureExtractor,
)

from sari_jax.hf.config import read_config
from sari_jax.hf.families import FAMILIES
from sari_jax.hf.load import load_params
from sari_jax.hf.names import Names, rules
from sari_jax.hf.shards import Shards
from sari_jax.models.audio_lm import Params, Prompts
from sari_jax.models.config import AudioLMConfig

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


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt's expanded ids and its clips."""

    tokens: np.ndarray
    waveforms: tuple[np.ndarray, ...]


@dataclasses.dataclass
class Tiny:
    """One model in both worlds.

    Attributes:
        theirs: transformers' model, float32, in evaluation mode; read only.
        params: the same weights as ours.
    """

    directory: Path
    sizes: Sizes
    theirs: PreTrainedModel
    config: AudioLMConfig
    params: Params

    @property
    def names(self) -> Names:
        return FAMILIES[self.sizes.family].names(Shards(self.directory).tensors)


def make(directory: Path, sizes: Sizes, seed: int = 0) -> Tiny:
    theirs = random_model(sizes, seed)
    save(theirs, directory, sizes)
    config = read_config(directory)
    return Tiny(directory, sizes, theirs, config, load_params(directory, config))


def random_model(sizes: Sizes, seed: int) -> PreTrainedModel:
    """Weights wide enough that logits differ and greedy decoding has something to choose from.

    transformers starts norms at one and biases at zero, which would hide that one of them is left out or misplaced:
    all are drawn here.
    """
    model = (_qwen2_audio if sizes.family == "qwen2_audio" else _omni_thinker)(sizes).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(
                1 + 0.2 * noise if is_norm(name) and name.endswith("weight") else 0.2 * noise
            )
            parameter.requires_grad_(True)  # positions too, which transformers freezes
    if sizes.tied:  # which transformers leaves undone for Qwen2-Audio, whatever config.json says
        model.lm_head.weight = model.get_input_embeddings().weight
    return model


def _qwen2_audio(sizes: Sizes) -> PreTrainedModel:
    return Qwen2AudioForConditionalGeneration(
        Qwen2AudioConfig(
            audio_config=dict(model_type="qwen2_audio_encoder", **_tower(sizes)),
            text_config=dict(model_type="qwen2", rope_theta=sizes.rope_theta, **_text(sizes)),
            audio_token_index=sizes.audio_id,
        )
    )


def _omni_thinker(sizes: Sizes) -> PreTrainedModel:
    width, half = sizes.heads * sizes.head_dim, sizes.head_dim // 2
    rope = {
        "rope_type": "default",
        "rope_theta": sizes.rope_theta,
        "mrope_section": [half - 2, 1, 1],
    }
    return Qwen2_5OmniThinkerForConditionalGeneration(
        Qwen2_5OmniThinkerConfig(
            audio_config=dict(n_window=sizes.window // 2, output_dim=width, **_tower(sizes)),
            vision_config=dict(
                depth=1,
                hidden_size=16,
                intermediate_size=16,
                num_heads=2,
                out_hidden_size=width,
                patch_size=4,
                window_size=8,
                fullatt_block_indexes=[0],
            ),
            text_config=dict(rope_parameters=rope, **_text(sizes)),
            audio_token_index=sizes.audio_id,
            vision_start_token_id=sizes.vocabulary,
            tie_word_embeddings=sizes.tied,
        )
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


def is_norm(name: str) -> bool:
    return "norm" in name.split(".")[-2] or "ln_" in name


def save(model: PreTrainedModel, directory: Path, sizes: Sizes, **settings) -> None:
    """As a hub directory. Qwen2-Audio's tied head is stored a second time, as some checkpoints do."""
    embedding, twice = model.get_input_embeddings().weight, sizes.family == "qwen2_audio"
    if sizes.tied and twice:
        model.lm_head.weight = torch.nn.Parameter(embedding.detach().clone())
    model.save_pretrained(directory, **settings)
    model.lm_head.weight = embedding if sizes.tied else model.lm_head.weight
    path = directory / "config.json"
    raw = json.loads(path.read_text()) | {"tie_word_embeddings": sizes.tied}
    if sizes.family == "qwen2_5_omni":
        raw = {"model_type": "qwen2_5_omni", "thinker_config": raw, "enable_audio_output": True}
        _as_part_of_the_whole(directory)
    path.write_text(json.dumps(raw))


def _as_part_of_the_whole(directory: Path) -> None:
    """A thinker's single file as the whole model stores it, among tensors and files of the parts that speak."""
    path = directory / "model.safetensors"
    tensors = {f"thinker.{name}": tensor for name, tensor in load_file(path).items()}
    tensors["talker.codec_head.weight"] = torch.arange(6.0).reshape(2, 3)
    tensors["token2wav.bigvgan.conv.bias"] = torch.full((5,), torch.nan)
    save_file(tensors, path, metadata={"format": "pt"})
    (directory / "spk_dict.pt").write_bytes(b"voices")
    (directory / "generation_config.json").write_text("{}")


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
    lengths, audio_index = np.zeros(b, np.int32), np.full((b, p), -1, np.int32)
    waveforms, sizes = np.zeros((b, a, samples), np.float32), np.zeros((b, a), np.int32)
    for row, q in enumerate(questions):
        ids[row, : len(q.tokens)], lengths[row] = q.tokens, len(q.tokens)
        starts = np.flatnonzero((q.tokens == AUDIO_ID) & (np.roll(q.tokens, 1) != AUDIO_ID))
        for i, (start, waveform) in enumerate(zip(starts, q.waveforms, strict=True)):
            waveforms[row, i, : len(waveform)], sizes[row, i] = waveform, len(waveform)
            count = 0
            while start + count < len(q.tokens) and q.tokens[start + count] == AUDIO_ID:
                audio_index[row, start + count] = i * (samples // 640) + count
                count += 1
    return jax.device_put(Prompts(ids, lengths, audio_index, waveforms, sizes))


@functools.cache
def extractor(mels: int, seconds: int) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=mels, chunk_length=seconds)


def torch_inputs(
    sizes: Sizes, questions: Sequence[Question], answers: Sequence[np.ndarray] | None = None
) -> dict[str, torch.Tensor]:
    """transformers' inputs, clips padded to 30 or 60 s, rows on the right; with answers, labels for them alone."""
    answers = [np.zeros(0, np.int64)] * len(questions) if answers is None else answers
    size = max(len(q.tokens) + len(answer) for q, answer in zip(questions, answers, strict=True))
    ids, mask = (
        torch.zeros(len(questions), size, dtype=torch.long),
        torch.zeros(len(questions), size, dtype=torch.long),
    )
    labels = torch.full_like(ids, -100)
    for row, (q, answer) in enumerate(zip(questions, answers, strict=True)):
        start, end = len(q.tokens), len(q.tokens) + len(answer)
        ids[row, :end] = torch.tensor(np.concatenate([q.tokens, answer]).astype(np.int64))
        mask[row, :end] = 1
        labels[row, start:end] = ids[row, start:end]
    longest = max((len(w) for q in questions for w in q.waveforms), default=0)
    seconds = 60 if longest > 30 * SECOND else 30  # what follows a clip changes nothing
    sound = extractor(sizes.mels, seconds)(
        [waveform for q in questions for waveform in q.waveforms],
        sampling_rate=16_000,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return dict(
        input_ids=ids,
        attention_mask=mask,
        input_features=sound.input_features,
        feature_attention_mask=sound.attention_mask,
        labels=labels,
    )


def theirs_as_ours(
    tensors: dict[str, np.ndarray], config: AudioLMConfig, names: Names
) -> dict[str, np.ndarray]:
    """Tensors under transformers' module names (weights, gradients) -> flat by our paths."""
    flat = {}
    for rule in rules(config, names):
        parts = [rule.to_ours(tensors[module_name(name, names)]) for name in rule.names]
        flat["/".join(rule.path)] = np.stack(parts) if rule.layers else parts[0]
    return flat


def module_name(hub_name: str, names: Names) -> str:
    """The hub's names are those of an older transformers; `from_pretrained` and `save_pretrained` translate."""
    if hub_name == names.unembedding:
        return "lm_head.weight"
    if hub_name.startswith(names.decoder + "."):
        return "model.language_model" + hub_name.removeprefix(names.decoder)
    return "model." + hub_name.removeprefix("thinker.")


def torch_gradients(
    model: torch.nn.Module, loss: torch.Tensor, config: AudioLMConfig, names: Names
) -> dict[str, np.ndarray]:
    """d loss by our paths; a tied embedding's is the sum of both its uses."""
    named = {n: p for n, p in model.named_parameters() if not unused(n)}
    gradients = torch.autograd.grad(loss, list(named.values()))
    found = {name: g.detach().numpy() for name, g in zip(named, gradients, strict=True)}
    return theirs_as_ours(found, config, names)


def unused(module_name: str) -> bool:
    """What Omni's thinker has and we do not: eyes, and an embedding that its tower never looks at."""
    return ".visual." in module_name or "audio_bos_eos_token" in module_name


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
