"""A clip by its name, whether it lies loose in a file or packed in a shard."""

import io

import numpy as np
import soundfile
from jaxtyping import Float

from sari_jax.audio.files import LONGEST, load_waveform
from sari_jax.audio.packed import packed_clip, shard_of
from sari_jax.errors import InputError


def load_clip(
    path: str,
    start: float | None = None,
    end: float | None = None,
    *,
    longest: float = LONGEST,
) -> Float[np.ndarray, "S"]:
    """A clip at 16 kHz, or its span of seconds; `longest` of them may be asked for.

    Raises:
        InputError: it cannot be read; see `load_waveform` and `packed_clip`.
    """
    return load_waveform(_source(path), start=start, end=end, longest=longest, name=path)


def duration(path: str, start: float | None = None, end: float | None = None) -> float:
    """Seconds of a clip, by its head alone.

    Raises:
        InputError: it is not there, or no sound.
    """
    if end is None:
        try:
            end = soundfile.info(_source(path)).duration
        except (soundfile.SoundFileError, TypeError, ValueError, OSError) as error:
            raise InputError(
                f"{path}: not there, or not sound that is read here ({error})"
            ) from error
    return end - (start or 0.0)


def _source(path: str) -> str | io.BytesIO:
    packed = shard_of(path)
    return packed_clip(*packed) if packed else path
