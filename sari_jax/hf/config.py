"""config.json -> the network's frozen config, by model family.

transformers' own config classes fill in what a hub file leaves out, so that the defaults are theirs.
"""

import json
from pathlib import Path
from typing import Any

from sari_jax import foreign
from sari_jax.errors import InputError
from sari_jax.hf.families import FAMILIES
from sari_jax.hf.family import Family
from sari_jax.models.config import Adapter, AudioLMConfig


def read_config(
    model_dir: Path | str,
    *,
    dtype: str = "float32",
    remat: str = "none",
    attention: str = "xla",
    adapter: Adapter | None = None,
    quantized: str = "",
) -> AudioLMConfig:
    """The config of a Hugging Face directory, whose model may have adapters added to it and be kept in eight bits.

    Raises:
        InputError: no or broken config.json, a family that is not supported, a feature it needs that
            the networks here do not have.
    """
    raw, family, path = _read(model_dir)
    try:
        encoder, decoder, audio_token_id = family.read(raw)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # transformers raises several kinds, all meaning a broken file
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: not a {family.title} config ({reason}); fetch it again"
        ) from error
    return AudioLMConfig(
        encoder, decoder, audio_token_id, dtype, remat, attention, adapter, quantized
    )


def read_family(model_dir: Path | str) -> Family:
    """Which family a Hugging Face directory belongs to.

    Raises:
        InputError: as for `read_config`.
    """
    return _read(model_dir)[1]


def _read(model_dir: Path | str) -> tuple[dict[str, Any], Family, Path]:
    path = Path(model_dir) / "config.json"
    if told := foreign.model(Path(model_dir)):
        raise InputError(f"{model_dir}: {told}")
    if not path.is_file():
        raise InputError(
            f"{model_dir}: no config.json; --model names a Hugging Face model directory"
        )
    try:
        raw = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); fetch the file again") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path}: not a JSON object; fetch the file again")
    name = raw.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise InputError(
            f"{path}: model_type {name!r} is not supported; known: {', '.join(FAMILIES)}"
        )
    return raw, FAMILIES[name], path
