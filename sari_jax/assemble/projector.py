"""A new projector that starts where learning is easy: the tower's features, centred and whitened.

Whisper's features share a large constant part and have few strong directions; a random map of them starts badly
conditioned. The first principal components, scaled alike and mixed by a random rotation, do not.
"""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Float

from sari_jax.audio.files import load_waveform
from sari_jax.data.records import read_records
from sari_jax.data.sources import starter
from sari_jax.hf.config import read_config
from sari_jax.hf.names import qwen2_audio_rules
from sari_jax.models.audio_lm import bind
from sari_jax.models.encoder import frame_counts

CLIPS, SAMPLES = 120, 51_200  # training clips of the starter corpus, in a bucket of 3.2 s
FLOOR = 0.1  # of the mean variance: weak directions are not blown up
SCALE = 0.1  # of what comes out, near the embeddings'


def whitened_projector(
    tensors: dict[str, np.ndarray], model_dir: Path, width: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "width features"], Float[np.ndarray, "width"]]:
    """(weight, bias) of the linear map from the tower's features to the decoder.

    Args:
        tensors: the checkpoint's, under its own names; the projector's may hold anything of the right shape.
        model_dir: where its config.json stands.
    """
    features = _features(tensors, model_dir).astype(np.float64)
    mean = features.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov((features - mean).T))
    first = np.argsort(variances)[::-1][:width]
    # An eigenvector's sign is the library's whim: the largest entry is made positive.
    basis = directions[:, first]
    basis *= np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])])
    scaled = basis / np.sqrt(variances[first] + FLOOR * variances.mean())
    rotation, _ = np.linalg.qr(rng.standard_normal((len(first), width)).T)
    weight = SCALE * (scaled @ rotation.T).T
    return weight.astype(np.float32), (-weight @ mean).astype(np.float32)


def _features(
    tensors: dict[str, np.ndarray], model_dir: Path
) -> Float[np.ndarray, "frames features"]:
    config = read_config(model_dir)
    params = {}
    for rule in qwen2_audio_rules(config):
        arrays = [rule.to_ours(tensors[name]) for name in rule.names]
        params[rule.path] = np.stack(arrays) if rule.layers else arrays[0]
    tower = jax.jit(lambda params, x, n: bind(config, params).tower(x, n))
    params = traverse_util.unflatten_dict(params)
    with tempfile.TemporaryDirectory() as folder:
        starter.build(Path(folder) / "starter", train=CLIPS, validation=0, test=0)
        records = read_records(Path(folder) / "starter/train.jsonl")
        clips = [load_waveform(record.audio[0].path) for record in records]
    found = []
    for start in range(0, len(clips), 20):
        group = clips[start : start + 20]
        lengths = np.array([len(clip) for clip in group], np.int32)
        waveforms = np.stack([np.pad(clip, (0, SAMPLES - len(clip))) for clip in group])
        out = np.asarray(tower(params, jnp.asarray(waveforms), jnp.asarray(lengths)))
        found += [row[: frame_counts(n)[1]] for row, n in zip(out, lengths.tolist(), strict=True)]
    return np.concatenate(found)
