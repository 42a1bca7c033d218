"""config.json -> the network's frozen config, by model family.

transformers' own config classes read the file, so values that a hub file leaves out have transformers' defaults.
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
    """The config of a Hugging Face directory, with our settings for its network: see `AudioLMConfig`.

    Raises:
        InputError: config.json is missing or broken, or needs a family or a feature that is not supported.
    """
    raw, family, path = _read(model_dir)
    try:
        encoder, decoder, audio_token_id = family.read(raw)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    # transformers raises errors of several kinds, all for a broken file.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: not a {family.title} config ({reason}); fetch it again"
        ) from error
    return AudioLMConfig(
        encoder=encoder,
        decoder=decoder,
        audio_token_id=audio_token_id,
        dtype=dtype,
        remat=remat,
        attention=attention,
        adapter=adapter,
        quantized=quantized,
    )


def read_family(model_dir: Path | str) -> Family:
    """The model family of a Hugging Face directory.

    Raises:
        InputError: config.json is missing or broken, or its family is not supported.
    """
    return _read(model_dir)[1]


def _read(model_dir: Path | str) -> tuple[dict[str, Any], Family, Path]:
    path = Path(model_dir) / "config.json"
    if reason := foreign.model(Path(model_dir)):
        raise InputError(f"{model_dir}: {reason}")
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
