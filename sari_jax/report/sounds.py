"""A clip as a page plays and shows it: compressed sound, its outline and its spectrogram."""

import base64
import dataclasses
import io

import librosa
import numpy as np
import soundfile
from jaxtyping import Float
from matplotlib.image import imsave

from sari_jax.audio.clips import load_clip
from sari_jax.data.processor import SAMPLE_RATE

LONGEST = 30.0  # seconds of a clip on a page
MELS, COLUMNS, PEAKS = 64, 320, 160  # of its spectrogram, and of its outline
WINDOW = 1024  # samples of a spectrum
RANGE = 80.0  # decibels below the loudest that are told apart
PRESSURE = 0.8  # of MP3: 40 kbit/s at 16 kHz, which is 5 kB a second


@dataclasses.dataclass(frozen=True)
class Sound:
    """What a page holds of a clip.

    Attributes:
        mp3, spectrogram: data URLs.
        peaks: [PEAKS] the largest amplitude of each part, in hundredths of the clip's largest.
        seconds: of the whole clip.
        shortened: whether it ends before the clip does.
    """

    mp3: str
    spectrogram: str
    peaks: list[int]
    seconds: float
    shortened: bool

    @property
    def size(self) -> int:
        """Bytes on the page."""
        return len(self.mp3) + len(self.spectrogram) + 4 * len(self.peaks)


def read_sound(path: str, start: float | None = None, end: float | None = None) -> Sound:
    """A clip as `load_clip` reads it: what the model heard, at 16 kHz.

    Raises:
        InputError: it cannot be read.
    """
    waveform = load_clip(path, start, end)
    seconds = len(waveform) / SAMPLE_RATE
    shown = waveform[: round(LONGEST * SAMPLE_RATE)]
    return Sound(
        _url("audio/mpeg", _mp3(shown)),
        _url("image/webp", _spectrogram(shown)),
        _peaks(shown),
        seconds,
        len(shown) < len(waveform),
    )


def _mp3(waveform: Float[np.ndarray, "S"]) -> bytes:
    """Every browser plays it, which of Opus is not so."""
    file = io.BytesIO()
    soundfile.write(
        file,
        np.clip(waveform, -1, 1),
        SAMPLE_RATE,
        format="MP3",
        bitrate_mode="CONSTANT",
        compression_level=PRESSURE,
    )
    return file.getvalue()


def _spectrogram(waveform: Float[np.ndarray, "S"]) -> bytes:
    """Log-mel, low frequencies at the bottom."""
    hop = max(64, -(-len(waveform) // COLUMNS))
    padded = np.pad(waveform, (0, max(0, WINDOW - len(waveform))))
    mel = librosa.feature.melspectrogram(
        y=padded, sr=SAMPLE_RATE, n_fft=WINDOW, hop_length=hop, n_mels=MELS
    )
    decibels = librosa.power_to_db(mel, ref=max(float(mel.max()), 1e-10), top_db=RANGE)
    file = io.BytesIO()
    imsave(
        file, decibels[::-1], cmap="magma", vmin=-RANGE, vmax=0, format="webp",
        pil_kwargs={"quality": 60},
    )  # fmt: skip
    return file.getvalue()


def _peaks(waveform: Float[np.ndarray, "S"]) -> list[int]:
    parts = np.array_split(np.abs(waveform), min(PEAKS, max(len(waveform), 1)))
    peaks = np.array([part.max(initial=0.0) for part in parts])
    return np.rint(100 * peaks / max(float(peaks.max()), 1e-6)).astype(int).tolist()


def _url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
