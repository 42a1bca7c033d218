"""Sound files to waveforms: any format, rate, width and number of channels to 16 kHz mono float32."""

import math
from pathlib import Path

import librosa
import numpy as np
import soundfile
from jaxtyping import Float

from sari_jax.errors import InputError


def load_waveform(
    path: str | Path,
    *,
    start: float | None = None,
    end: float | None = None,
    sample_rate: int = 16_000,
) -> Float[np.ndarray, "S"]:
    """Reads a file, or only its span from `start` to `end`; channels are averaged.

    Args:
        path: whatever libsndfile reads: wav, flac, ogg, mp3 and more.
        start: seconds, default the beginning.
        end: seconds, default the end.
        sample_rate: Hz of the result.

    Raises:
        InputError: the file is missing, empty, not sound, cut short, without samples or not finite; or the span lies
            outside it.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a directory; name a sound file in it")
    if not path.is_file():
        raise InputError(f"{path}: no such sound file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); fetch it again")
    try:
        with soundfile.SoundFile(path) as file:
            rate, frames = file.samplerate, file.frames
            first, last = _span(path, start, end, rate, frames)
            file.seek(first)
            samples = file.read(last - first, dtype="float32", always_2d=True)
            # The length of an mp3 may be an estimate; elsewhere a promise that a cut file does not keep.
            if len(samples) < last - first and file.format != "MP3":
                raise InputError(
                    f"{path}: corrupt or cut short: ends after {(first + len(samples)) / rate:.3f} of"
                    f" {frames / rate:.3f} s; fetch it again"
                )
    except (
        soundfile.SoundFileRuntimeError,
        TypeError,
    ) as error:  # TypeError: raw samples, by the file's name
        raise InputError(
            f"{path}: corrupt, or of a kind not read here ({error}); convert it to wav or flac"
        ) from error
    if len(samples) == 0:
        raise InputError(f"{path}: holds no samples; leave it out")
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise InputError(
            f"{path}: holds samples that are not finite; leave it out or write it anew"
        )
    if rate != sample_rate:
        mono = librosa.resample(mono, orig_sr=rate, target_sr=sample_rate, res_type="soxr_hq")
    return np.ascontiguousarray(mono, np.float32)


def _span(
    path: Path, start: float | None, end: float | None, rate: int, frames: int
) -> tuple[int, int]:
    """The first sample of the span and the one after its last."""
    if start is None and end is None:
        return 0, frames
    begin, until = start or 0.0, frames / rate if end is None else end
    if math.isfinite(begin) and math.isfinite(until):
        first, last = round(begin * rate), round(until * rate)
        if 0 <= first < last <= frames:
            return first, last
    raise InputError(
        f"{path}: the span from {begin:g} to {until:g} s does not lie within its {frames / rate:g} s"
    )
