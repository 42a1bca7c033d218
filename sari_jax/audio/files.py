"""Sound files to waveforms: any format, rate, width and number of channels to 16 kHz mono float32."""

from pathlib import Path

import librosa
import numpy as np
import soundfile
from jaxtyping import Float

from sari_jax.errors import InputError


def load_waveform(
    path: str | Path, *, start: float | None = None, end: float | None = None, sample_rate: int = 16_000
) -> Float[np.ndarray, "S"]:
    """Reads a file, or its span from `start` to `end` in seconds; channels are averaged.

    Raises:
        InputError: the file is missing, empty, not sound, without samples or not finite; or the span lies outside.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such sound file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes)")
    try:
        with soundfile.SoundFile(path) as file:
            rate, frames = file.samplerate, len(file)
            first = round((start or 0.0) * rate)
            last = frames if end is None else round(end * rate)
            if not 0 <= first < last <= frames and frames:
                raise InputError(
                    f"{path}: span {start or 0} to {end if end is not None else 'the end'} s lies outside its"
                    f" {frames / rate:.3f} s"
                )
            file.seek(first)
            samples = file.read(last - first, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise InputError(f"{path}: corrupt or not a sound file that libsndfile reads ({error})") from error
    if len(samples) == 0:
        raise InputError(f"{path}: holds no samples")
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise InputError(f"{path}: holds samples that are not finite")
    if rate != sample_rate:
        mono = librosa.resample(mono, orig_sr=rate, target_sr=sample_rate, res_type="soxr_hq")
    return np.ascontiguousarray(mono, np.float32)
