import re
import struct

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import WhisperConfig, WhisperFeatureExtractor

from sari_jax import assets
from sari_jax.assemble.whisper import DTYPES, encoder_tensors, read_ctranslate2
from sari_jax.corpus.sources.starter.speech import Speaker
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
    ("version", "kept", "reason"),
    [(5, None, "format 5"), (6, 300, "truncated"), (6, 2, "truncated")],
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


def whisper_state(
    encoder: dict[str, np.ndarray], source: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Our encoder tensors and the file's decoder, as transformers' Whisper names them."""
    state = {name.replace("audio_tower", "model.encoder"): array for name, array in encoder.items()}

    def pair(ours: str, weight: np.ndarray, bias: np.ndarray) -> None:
        state[f"model.decoder.{ours}.weight"], state[f"model.decoder.{ours}.bias"] = weight, bias

    def norm(ours: str, theirs: str) -> None:
        pair(ours, source[f"decoder/{theirs}/gamma"], source[f"decoder/{theirs}/beta"])

    def linear(names: list[str], theirs: str) -> None:
        parts = (
            np.split(source[f"decoder/{theirs}/{kind}"], len(names)) for kind in ("weight", "bias")
        )
        for ours, weight, bias in zip(names, *parts, strict=True):
            pair(ours, weight, bias)

    state["model.decoder.embed_tokens.weight"] = state["proj_out.weight"] = source[
        "decoder/embeddings/weight"
    ]
    state["model.decoder.embed_positions.weight"] = source["decoder/position_encodings/encodings"]
    norm("layer_norm", "layer_norm")
    for i in range(4):
        to, of = f"layers.{i}", f"layer_{i}"
        norm(f"{to}.self_attn_layer_norm", f"{of}/self_attention/layer_norm")
        norm(f"{to}.encoder_attn_layer_norm", f"{of}/attention/layer_norm")
        norm(f"{to}.final_layer_norm", f"{of}/ffn/layer_norm")
        linear([f"{to}.self_attn.{part}_proj" for part in "qkv"], f"{of}/self_attention/linear_0")
        linear([f"{to}.self_attn.out_proj"], f"{of}/self_attention/linear_1")
        linear([f"{to}.encoder_attn.q_proj"], f"{of}/attention/linear_0")
        linear([f"{to}.encoder_attn.{part}_proj" for part in "kv"], f"{of}/attention/linear_1")
        linear([f"{to}.encoder_attn.out_proj"], f"{of}/attention/linear_2")
        linear([f"{to}.fc1"], f"{of}/ffn/linear_0")
        linear([f"{to}.fc2"], f"{of}/ffn/linear_1")
    unused = [name for name in state if name.endswith("k_proj.bias")]
    return {name: np.float32(array) for name, array in state.items() if name not in unused}


@pytest.fixture(scope="module")
def whisper(theirs):
    import torch
    from transformers import WhisperForConditionalGeneration

    path = assets.fetch("whisper-tiny.en") / "model.bin"
    config = WhisperConfig(
        vocab_size=51_864, d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536,
        decoder_layers=4, decoder_attention_heads=6, decoder_ffn_dim=1536,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    state = whisper_state(encoder_tensors(path), read_ctranslate2(path))
    model.load_state_dict({name: torch.tensor(array) for name, array in state.items()}, strict=True)
    return model, Tokenizer.from_file(str(path.parent / "tokenizer.json"))


@pytest.mark.numerics
@pytest.mark.parametrize(
    ("text", "voice"),
    [("Where is the station?", "en-us+m3"), ("Good morning, my friend.", "en-us+m1")],
)
def test_it_understands_speech(whisper, text, voice):
    """With its own decoder behind it, in transformers, the encoder that we read writes down what is said."""
    import torch

    model, tokenizer = whisper
    start, plain, end = (
        tokenizer.token_to_id(token)
        for token in ("<|startoftranscript|>", "<|notimestamps|>", "<|endoftext|>")
    )
    sound = WhisperFeatureExtractor()(
        Speaker().say(text, voice), sampling_rate=16_000, return_tensors="pt"
    )
    tokens = [start, plain]
    with torch.no_grad():
        heard = model.get_encoder()(sound.input_features)
        while len(tokens) < 16 and tokens[-1] != end:
            logits = model(encoder_outputs=heard, decoder_input_ids=torch.tensor([tokens])).logits
            tokens.append(int(logits[0, -1].argmax()))
    words = re.findall(r"\w+", tokenizer.decode(tokens).lower())
    assert words == re.findall(r"\w+", text.lower())
