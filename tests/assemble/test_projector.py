import numpy as np
import pytest
from safetensors.numpy import load_file

from sari_jax.assemble import NanoSize, assemble
from sari_jax.assemble.projector import SCALE, random_projector, tower_features, white_projector
from sari_jax.data.records import read_records

SMALL = NanoSize(width=48, layers=1, heads=4, kv_heads=2, ffn=64, tokens=400)
WEIGHT, BIAS = "multi_modal_projector.linear.weight", "multi_modal_projector.linear.bias"


def test_every_direction_in_which_sounds_differ_counts_alike():
    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    deviations = np.array([10.0, 3.0, 1.0, 1.0, 1.0, 1e-4])
    features = 5 + (rng.standard_normal((4000, 6)) * deviations) @ turned.T
    tensors = white_projector(features.astype(np.float32), 400, rng)
    out = features @ tensors[WEIGHT].T + tensors[BIAS]
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-4)
    lengths = np.linalg.norm(tensors[WEIGHT] @ (turned * deviations), axis=0)
    wanted = SCALE * (400 / 6) ** 0.5
    np.testing.assert_allclose(lengths[:2], wanted, rtol=0.15)
    np.testing.assert_allclose(lengths[2:5], wanted * (1 + 0.01 * 18.8) ** -0.5, rtol=0.15)
    assert lengths[5] < 0.01 * wanted  # noise is no direction
    plain = random_projector(6, 400, rng)[WEIGHT] @ (turned * deviations)
    assert np.linalg.norm(plain, axis=0)[0] > 5 * np.linalg.norm(plain, axis=0)[2]


@pytest.fixture(scope="module")
def records(scored):
    return read_records(scored)[:3]


def test_frames_are_those_of_the_sound(records, small_model):
    together = tower_features(small_model, records)
    apart = [tower_features(small_model, [record]) for record in records]
    assert [len(one) for one in apart] and len(together) == sum(map(len, apart))
    np.testing.assert_allclose(together, np.concatenate(apart), atol=1e-4)


def test_the_projector_alone_is_another(records, tmp_path):
    for name, sounds in (("plain", ()), ("white", records), ("again", records)):
        assemble("nano", tmp_path / name, size=SMALL, sounds=sounds)
    plain, white, again = (
        load_file(tmp_path / name / "model.safetensors") for name in ("plain", "white", "again")
    )
    assert {name for name in plain if not np.array_equal(plain[name], white[name])} == {
        WEIGHT,
        BIAS,
    }
    assert all(np.array_equal(white[name], again[name]) for name in white)
