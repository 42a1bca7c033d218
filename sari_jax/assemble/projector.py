"""Initial weights of the projector, the linear map from tower to decoder, which no package provides."""

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

# The deviation of a random projector's output, about that of token embeddings.
SCALE = 0.1
# This fraction of the features' mean variance is added to each variance.
RIDGE = 0.1
# This fraction of the captions' largest variance is added to each, so that whitening does not blow up small
# differences.
FLOOR = 0.02
ROWS = 8

Tensors = dict[str, Float[np.ndarray, "..."]]


def random_projector(audio_width: int, width: int, rng: np.random.Generator) -> Tensors:
    """Returns a random projector for features of unit scale, under Qwen2-Audio's names."""
    kernel = SCALE * audio_width**-0.5 * rng.standard_normal((width, audio_width))
    return _named(kernel, np.zeros(width))


def aligned_projector(
    features: Sequence[Float[np.ndarray, "_ D"]],
    captions: Float[np.ndarray, "N E"],
    deviation: float,
) -> Tensors:
    """Fits a map from each frame of a clip to the mean embedding of its caption's tokens, by ridge regression.

    Captions are whitened first. Otherwise most of what the regression learns is common to many captions ("a phrase",
    "the speaker"), and little is the words that distinguish one clip from another. The output has the embeddings'
    deviation and no mean, so it is near what a language model can read. Without this start, the model takes longer to
    discover that the audio is of use than to memorise a few hundred questions. The method is ours.

    Args:
        features: the tower's frames of each of N clips.
        captions: mean embeddings of the captions, in the same order.
        deviation: the standard deviation of the decoder's embeddings.
    """
    frames = np.concatenate(features).astype(np.float64)
    mean = frames.mean(axis=0)
    frames = frames - mean
    words = captions.astype(np.float64)
    words = words - words.mean(axis=0)
    variances, directions = np.linalg.eigh(words.T @ words / len(words))
    spread = np.sqrt(np.maximum(variances, 0) + FLOOR * variances.max())
    words = words @ (directions / spread) @ directions.T
    targets = np.repeat(words, [len(clip) for clip in features], axis=0)
    within = frames.T @ frames / len(frames)
    within += RIDGE * np.trace(within) / len(mean) * np.eye(len(mean))
    kernel = np.linalg.solve(within, frames.T @ targets / len(frames)).T  # [E, D]
    kernel *= deviation / (frames @ kernel.T).std()
    return _named(kernel, -kernel @ mean)


def tower_features(directory: Path, records: Sequence[Record]) -> list[Float[np.ndarray, "_ D"]]:
    """Returns the tower's frames of each record's audio, without padding, by the model in a directory."""
    config = read_config(directory)
    params = load_params(directory, config)
    processor = Processor(directory, config)
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
