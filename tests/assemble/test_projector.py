import numpy as np
import pytest
from safetensors.numpy import load_file

from sari_jax.assemble import NanoSize, assemble, projector
from sari_jax.assemble.projector import aligned_projector, tower_features
from sari_jax.cli import main
from sari_jax.data.records import read_records, write_records

SMALL = NanoSize(width=48, layers=1, heads=4, kv_heads=2, ffn=64, tokens=400)
WEIGHT, BIAS = "multi_modal_projector.linear.weight", "multi_modal_projector.linear.bias"


def test_what_comes_out_is_near_the_words_of_the_caption():
    """Of sounds that it has not seen; though what they have in common is most of both."""
    rng = np.random.default_rng(0)
    kinds, inside, width = 6, 24, 40
    hidden, words = rng.standard_normal((kinds, inside)), 0.05 * rng.standard_normal((kinds, width))
    common, loud = 5 * rng.standard_normal(inside), 3 * rng.standard_normal((3, inside))
    shared = rng.standard_normal((3, width))  # words that stand in many captions

    def clip(kind):
        noise = rng.standard_normal((20, inside)) + rng.standard_normal((20, 3)) @ loud
        return (common + hidden[kind] + noise).astype(np.float32)

    seen = [kind for kind in range(kinds) for _ in range(30)]
    captions = np.stack([words[kind] + shared[i % 3] for i, kind in enumerate(seen)])
    sounds = [clip(kind) for kind in seen]
    tensors = aligned_projector(sounds, captions.astype(np.float32), 0.25)
    heard = []
    for kind in range(kinds):
        for _ in range(20):
            out = clip(kind) @ tensors[WEIGHT].T + tensors[BIAS]
            heard.append(int(np.argmax((words - words.mean(0)) @ out.mean(0))) == kind)
    assert np.mean(heard) > 0.9
    out = np.concatenate(sounds) @ tensors[WEIGHT].T + tensors[BIAS]
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(out.std(), 0.25, rtol=1e-3)


@pytest.fixture
def records(scored, monkeypatch):
    """Three, of which two go through the tower together."""
    monkeypatch.setattr(projector, "ROWS", 2)
    return read_records(scored)[:3]


@pytest.mark.numerics
def test_frames_are_those_of_the_sound(records, small_model):
    together = tower_features(small_model, records)
    turned = tower_features(small_model, records[::-1])[::-1]
    for some, one in zip(together, turned, strict=True):
        np.testing.assert_allclose(some, one, atol=1e-4)
    assert len(together) == 3 and all(25 < len(one) <= 100 for one in together)  # 25 a second


@pytest.mark.numerics
def test_the_projector_alone_is_another(records, tmp_path):
    for name, captioned in (("plain", ()), ("aligned", records), ("again", records)):
        assemble("nano", tmp_path / name, size=SMALL, captioned=captioned)
    plain, aligned, again = (
        load_file(tmp_path / name / "model.safetensors") for name in ("plain", "aligned", "again")
    )
    assert {name for name in plain if not np.array_equal(plain[name], aligned[name])} == {
        WEIGHT,
        BIAS,
    }
    assert all(np.array_equal(aligned[name], again[name]) for name in aligned)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"chain_structured": None}, "record r1 has no caption in a chain_structured"),
        ({"chain_structured": {"planning": "x"}}, "record r1 has no caption in a chain_structured"),
        ({}, "all of 2 captions are the same; give at least two that differ"),
    ],
)
def test_captions_that_cannot_be_used(changes, told, make_record, tmp_path, capsys):
    (tmp_path / "dog.wav").write_bytes(b"never read")
    records = [make_record(id=name, **changes) for name in ("r1", "r2")]
    write_records(tmp_path / "captions.jsonl", records)
    words = ["--out", str(tmp_path / "out"), "--captions", str(tmp_path / "captions.jsonl")]
    assert main(["model", "assemble", "nano", *words]) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "out").exists()
