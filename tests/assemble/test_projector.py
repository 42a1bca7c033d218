import numpy as np
from safetensors.numpy import load_file

from sari_jax.data.processor import Shapes
from sari_jax.data.records import read_records
from sari_jax.data.styles import style
from sari_jax.generate.engine import Engine
from sari_jax.generate.rollout import encode
from sari_jax.models.encoder import frame_counts


def test_sound_enters_the_decoder_centred_and_well_conditioned(nano_dir, starter_dir):
    engine = Engine(nano_dir)
    records = read_records(starter_dir / "train.jsonl")[
        120:160
    ]  # not those that the projector was fitted to
    examples = [engine.processor.question(record, style("direct")) for record in records]
    batch = engine.processor.collate(examples, Shapes())
    features = np.asarray(encode(engine.config, engine.params, batch.prompts))
    frames = frame_counts(batch.prompts.samples[:, 0])[1]
    features = np.concatenate([row[0, :count] for row, count in zip(features, frames, strict=True)])
    kernel = np.asarray(engine.params["projector"]["kernel"])
    sound = features @ kernel + np.asarray(engine.params["projector"]["bias"])

    plain = np.linalg.eigvalsh(np.cov(features.T))[-kernel.shape[1] :]
    white = np.linalg.eigvalsh(np.cov(sound.T))
    assert np.abs(sound.mean(axis=0)).max() < 0.05
    assert 0.05 < sound.std() < 0.2
    assert white[-1] / white[0] < 0.2 * plain[-1] / plain[0]


def test_the_same_seed_gives_the_same_projector(nano_dir, tmp_path):
    from sari_jax.assemble import assemble

    assemble("nano", tmp_path / "again", seed=0)
    name = "multi_modal_projector.linear.weight"
    first, second = (
        load_file(d / "model.safetensors")[name] for d in (nano_dir, tmp_path / "again")
    )
    np.testing.assert_array_equal(first, second)
