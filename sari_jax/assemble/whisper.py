"""A reader of Whisper-tiny.en's encoder in a CTranslate2 model file.

It is written by hand, as CTranslate2 runs such files but does not give access to their weights.
"""

import struct
from pathlib import Path

import numpy as np

from sari_jax.errors import InputError

DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
VERSION = 6


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """Reads all variables of a model.bin, format version 6.

    The layout is version, spec name, revision, count; then for each variable its name, rank, shape, dtype, bytes.

    Raises:
        InputError: the file has another version or is truncated.
    """
    data = Path(path).read_bytes()
    at = 0

    def take(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{form}", data, at)
        at += struct.calcsize(form)
        return value

    def text() -> str:
        nonlocal at
        size = take("H")
        at += size
        return data[at - size : at].rstrip(b"\0").decode()

    try:
        if (version := take("I")) != VERSION:
            raise InputError(f"{path}: CTranslate2 format {version}, only {VERSION} is read")
        text(), take("I")
        variables = {}
        for _ in range(take("I")):
            name, rank = text(), take("B")
            shape = tuple(take("I") for _ in range(rank))
            dtype, size = np.dtype(DTYPES[take("B")]), take("I")
            variables[name] = np.frombuffer(data, dtype, size // dtype.itemsize, at).reshape(shape)
            at += size
    except (struct.error, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: truncated or not a CTranslate2 model ({error}); fetch it again"
        ) from error
    return variables


def encoder_tensors(path: Path) -> dict[str, np.ndarray]:
    """Returns the encoder in float32 under Qwen2-Audio's names ("audio_tower.*"), with query, key and value split."""
    source = read_ctranslate2(path)
    tensors: dict[str, np.ndarray] = {}

    def put(name: str, array: np.ndarray) -> None:
        tensors[f"audio_tower.{name}"] = np.ascontiguousarray(array, np.float32)

    def pair(name: str, ours: str, weight: str = "weight", bias: str = "bias") -> None:
        put(f"{ours}.weight", source[f"{name}/{weight}"])
        put(f"{ours}.bias", source[f"{name}/{bias}"])

    pair("encoder/conv1", "conv1")
    pair("encoder/conv2", "conv2")
    put("embed_positions.weight", source["encoder/position_encodings/encodings"])
    pair("encoder/layer_norm", "layer_norm", "gamma", "beta")
    layer = 0
    while f"encoder/layer_{layer}/ffn/linear_0/weight" in source:
        theirs, ours = f"encoder/layer_{layer}", f"layers.{layer}"
        pair(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm", "gamma", "beta")
        weights = np.split(source[f"{theirs}/self_attention/linear_0/weight"], 3)
        biases = np.split(source[f"{theirs}/self_attention/linear_0/bias"], 3)
        for part, weight, bias in zip("qkv", weights, biases, strict=True):
            put(f"{ours}.self_attn.{part}_proj.weight", weight)
            if part != "k":  # Whisper's keys have no bias; the fused map carries zeros there
                put(f"{ours}.self_attn.{part}_proj.bias", bias)
        pair(f"{theirs}/self_attention/linear_1", f"{ours}.self_attn.out_proj")
        pair(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm", "gamma", "beta")
        pair(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
        pair(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
        layer += 1
    return tensors
