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

SCALE = 0.1  # of what comes out: about that of the decoders' token embeddings
FLOOR = 0.01  # of the mean variance: directions with less are noise, and stay small
ROWS = 8


def random_projector(
    inside: int, width: int, rng: np.random.Generator
) -> dict[str, Float[np.ndarray, "..."]]:
    """Random, for features of unit scale, under Qwen2-Audio's names."""
    kernel = SCALE * inside**-0.5 * rng.standard_normal((width, inside))
    return _named(kernel, np.zeros(width))


def white_projector(
    features: Float[np.ndarray, "N D"], width: int, rng: np.random.Generator
) -> dict[str, Float[np.ndarray, "..."]]:
    """Random after the features were centred and made white: every direction in which sounds differ counts alike.

    Whisper-tiny's features lie off zero, and half of what they differ by is in ten of their 384 directions. A random
    map hands that on, and a language model then tells questions apart by their words long before it hears.
    """
    mean, features = features.mean(axis=0, dtype=np.float64), features.astype(np.float64)
    variances, directions = np.linalg.eigh(np.cov(features, rowvar=False))
    white = directions / np.sqrt(variances + FLOOR * variances.mean())  # [D, D]
    inside = len(mean)
    kernel = SCALE * inside**-0.5 * rng.standard_normal((width, inside)) @ white.T
    return _named(kernel, -kernel @ mean)


def tower_features(directory: Path, records: Sequence[Record]) -> Float[np.ndarray, "N D"]:
    """What the tower of a model directory makes of the records' sounds, frame by frame, without padding."""
    config = read_config(directory)
    params, processor = load_params(directory, config), Processor(directory, config)
    found = []
    for start in range(0, len(records), ROWS):
        some = records[start : start + ROWS]
        examples = [processor.question(record, STYLES["direct"]) for record in some]
        prompts = processor.collate(examples, Shapes(), ROWS).prompts
        features = np.asarray(encode(config, params, prompts))
        for row, index in zip(features[: len(some)], prompts.audio_index, strict=False):
            found.append(row.reshape(-1, row.shape[-1])[index[index >= 0]])
    return np.concatenate(found)


def _named(kernel: np.ndarray, bias: np.ndarray) -> dict[str, Float[np.ndarray, "..."]]:
    name = "multi_modal_projector.linear"
    return {
        f"{name}.weight": kernel.astype(np.float32),
        f"{name}.bias": bias.astype(np.float32),
    }
