"""The linear map from the tower to the decoder, which no package has: how it starts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from sari_jax.data.processor import Processor, Shapes
from sari_jax.data.records import Record
from sari_jax.data.styles import STYLES
from sari_jax.generate.rollout import encode
from sari_jax.hf.config import read_config
from sari_jax.hf.load import load_params

SCALE = 0.1  # of what comes out of a random one: about that of token embeddings
RIDGE = 0.1  # of the features' mean variance, added to each
FLOOR = 0.02  # of the captions' largest variance, added to each: what they hardly differ by is not blown up
ROWS = 8

Tensors = dict[str, Float[np.ndarray, "..."]]


def random_projector(inside: int, width: int, rng: np.random.Generator) -> Tensors:
    """Random, for features of unit scale, under Qwen2-Audio's names."""
    kernel = SCALE * inside**-0.5 * rng.standard_normal((width, inside))
    return _named(kernel, np.zeros(width))


def aligned_projector(
    sounds: Sequence[Float[np.ndarray, "_ D"]], captions: Float[np.ndarray, "N E"], deviation: float
) -> Tensors:
    """From each frame of a sound to the mean embedding of its caption's tokens, by ridge regression.

    Captions are made white first: else what is common to many of them ("a phrase", "the speaker") is most of what is
    learnt, and little of the words that tell one sound from another. What comes out has the embeddings' deviation and
    no mean, and is near what a language model reads already: it need not find out by itself that there is something to
    hear, which takes it longer than to learn a few hundred questions by heart. Ours.

    Args:
        sounds: the tower's frames of each of N clips.
        captions: mean embeddings, in the same order.
        deviation: of the decoder's embeddings.
    """
    frames = np.concatenate(sounds).astype(np.float64)
    mean, words = frames.mean(axis=0), captions.astype(np.float64)
    frames, words = frames - mean, words - words.mean(axis=0)
    variances, directions = np.linalg.eigh(words.T @ words / len(words))
    spread = np.sqrt(np.maximum(variances, 0) + FLOOR * variances.max())
    words = words @ (directions / spread) @ directions.T
    targets = np.repeat(words, [len(sound) for sound in sounds], axis=0)
    within = frames.T @ frames / len(frames)
    within += RIDGE * np.trace(within) / len(mean) * np.eye(len(mean))
    kernel = np.linalg.solve(within, frames.T @ targets / len(frames)).T  # [E, D]
    kernel *= deviation / (frames @ kernel.T).std()
    return _named(kernel, -kernel @ mean)


def tower_features(directory: Path, records: Sequence[Record]) -> list[Float[np.ndarray, "_ D"]]:
    """What the tower of a model directory makes of each record's sound, frame by frame, without padding."""
    config = read_config(directory)
    params, processor = load_params(directory, config), Processor(directory, config)
    found = []
    for start in range(0, len(records), ROWS):
        some = records[start : start + ROWS]
        examples = [processor.question(record, STYLES["direct"]) for record in some]
        prompts = processor.collate(examples, Shapes(), ROWS).prompts
        features = np.asarray(encode(config, params, prompts))
        for row, index in zip(features[: len(some)], prompts.audio_index, strict=False):
            clip, frame = index[index[:, 0] >= 0].T
            found.append(row[clip, frame])
    return found


def _named(kernel: np.ndarray, bias: np.ndarray) -> Tensors:
    name = "multi_modal_projector.linear"
    return {
        f"{name}.weight": np.ascontiguousarray(kernel, np.float32),
        f"{name}.bias": bias.astype(np.float32),
    }
