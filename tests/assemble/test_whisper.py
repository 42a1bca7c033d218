import struct

import numpy as np
import pytest

from sari_jax import assets
from sari_jax.assemble.whisper import DTYPES, encoder_tensors, read_ctranslate2
from sari_jax.errors import InputError


def write_ctranslate2(path, variables: dict[str, np.ndarray], version: int = 6) -> None:
    codes = {np.dtype(kind): code for code, kind in DTYPES.items()}

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    data = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, array in variables.items():
        data += text(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        data += struct.pack("<BI", codes[array.dtype], array.nbytes) + array.tobytes()
    path.write_bytes(data + struct.pack("<I", 0))  # no aliases


@pytest.fixture
def variables():
    """One layer of width 4, every number different."""
    shapes = {
        "encoder/conv1/weight": (4, 2, 3),
        "encoder/conv1/bias": (4,),
        "encoder/conv2/weight": (4, 4, 3),
        "encoder/conv2/bias": (4,),
        "encoder/position_encodings/encodings": (6, 4),
        "encoder/layer_norm/gamma": (4,),
        "encoder/layer_norm/beta": (4,),
        "encoder/layer_0/self_attention/layer_norm/gamma": (4,),
        "encoder/layer_0/self_attention/layer_norm/beta": (4,),
        "encoder/layer_0/self_attention/linear_0/weight": (12, 4),
        "encoder/layer_0/self_attention/linear_0/bias": (12,),
        "encoder/layer_0/self_attention/linear_1/weight": (4, 4),
        "encoder/layer_0/self_attention/linear_1/bias": (4,),
        "encoder/layer_0/ffn/layer_norm/gamma": (4,),
        "encoder/layer_0/ffn/layer_norm/beta": (4,),
        "encoder/layer_0/ffn/linear_0/weight": (8, 4),
        "encoder/layer_0/ffn/linear_0/bias": (8,),
        "encoder/layer_0/ffn/linear_1/weight": (4, 8),
        "encoder/layer_0/ffn/linear_1/bias": (4,),
    }
    count, made = 0, {}
    for name, shape in shapes.items():
        made[name] = np.arange(count, count + np.prod(shape), dtype=np.float16).reshape(shape)
        count += made[name].size
    return made


def test_reads_every_variable_and_dtype(tmp_path):
    variables = {f"v{i}": np.arange(6).astype(kind).reshape(2, 3) for i, kind in DTYPES.items()}
    variables["scalar"] = np.array(7, np.int8)
    write_ctranslate2(tmp_path / "model.bin", variables)
    read = read_ctranslate2(tmp_path / "model.bin")
    assert list(read) == list(variables)
    for name, array in variables.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_query_key_and_value_come_apart(tmp_path, variables):
    write_ctranslate2(tmp_path / "model.bin", variables)
    tensors = encoder_tensors(tmp_path / "model.bin")
    fused = variables["encoder/layer_0/self_attention/linear_0/weight"]
    for i, part in enumerate("qkv"):
        split = tensors[f"audio_tower.layers.0.self_attn.{part}_proj.weight"]
        np.testing.assert_array_equal(split, fused[4 * i : 4 * i + 4])
    fused = variables["encoder/layer_0/self_attention/linear_0/bias"]
    np.testing.assert_array_equal(tensors["audio_tower.layers.0.self_attn.q_proj.bias"], fused[:4])
    np.testing.assert_array_equal(tensors["audio_tower.layers.0.self_attn.v_proj.bias"], fused[8:])
    assert "audio_tower.layers.0.self_attn.k_proj.bias" not in tensors


@pytest.mark.parametrize(
    ("version", "kept", "reason"), [(5, None, "format 5"), (6, 300, "truncated"), (6, 2, "truncated")]
)
def test_refuses_other_versions_and_cut_files(tmp_path, variables, version, kept, reason):
    path = tmp_path / "model.bin"
    write_ctranslate2(path, variables, version)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=reason):
        read_ctranslate2(path)


def test_whisper_tiny():
    path = assets.fetch("whisper-tiny.en") / "model.bin"
    tensors = encoder_tensors(path)
    assert len(tensors) == 4 + 1 + 2 + 4 * 15
    assert all(array.dtype == np.float32 for array in tensors.values())
    # The positions are Whisper's sinusoids (first half sines, second half cosines), rounded to float16.
    rates = np.exp(-np.log(10_000) / 191 * np.arange(192))
    angles = np.arange(1500)[:, None] * rates
    sinusoids = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(tensors["audio_tower.embed_positions.weight"], sinusoids, atol=1e-3)
    # What is left out is nothing: the fused map's key biases.
    for layer in range(4):
        bias = read_ctranslate2(path)[f"encoder/layer_{layer}/self_attention/linear_0/bias"]
        assert not bias[384:768].any()
