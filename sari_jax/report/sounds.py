"""A clip as a page plays and shows it: compressed audio, its outline and its spectrogram."""

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

# Seconds of a clip that a page holds at most.
LONGEST = 30.0
# Rows and columns of a spectrogram.
MELS = 64
COLUMNS = 320
# Parts of an outline.
PEAKS = 160
# Samples of one spectrum.
WINDOW = 1024
# Decibels between the loudest and the darkest colour of a spectrogram.
RANGE = 80.0
# Compression level of MP3: 40 kbit/s at 16 kHz, which is 5 kB a second.
PRESSURE = 0.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sound:
    """A clip's audio and pictures on a page.

    Attributes:
        mp3, spectrogram: data URLs.
        peaks: [PEAKS] the largest amplitude of each part, in hundredths of the clip's largest.
        seconds: length of the whole clip.
        shortened: whether the page's audio ends before the clip does.
    """

    mp3: str
    spectrogram: str
    peaks: list[int]
    seconds: float
    shortened: bool

    @property
    def size(self) -> int:
        """Bytes that the clip takes on the page."""
        return len(self.mp3) + len(self.spectrogram) + 4 * len(self.peaks)


def read_sound(path: str, start: float | None = None, end: float | None = None) -> Sound:
    """Reads a clip as `load_clip` does, so that it is the audio that the model was given, at 16 kHz.

    Raises:
        InputError: the clip cannot be read.
    """
    waveform = load_clip(path, start, end)
    seconds = len(waveform) / SAMPLE_RATE
    shown = waveform[: round(LONGEST * SAMPLE_RATE)]
    return Sound(
        mp3=_url("audio/mpeg", _mp3(shown)),
        spectrogram=_url("image/webp", _spectrogram(shown)),
        peaks=_peaks(shown),
        seconds=seconds,
        shortened=len(shown) < len(waveform),
    )


def _mp3(waveform: Float[np.ndarray, "S"]) -> bytes:
    """Returns the clip as MP3, which every browser plays; Opus is not played by all."""
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
    """Returns a picture of the log-mel spectrogram, with low frequencies at the bottom."""
    hop = max(64, -(-len(waveform) // COLUMNS))
    padded = np.pad(waveform, (0, max(0, WINDOW - len(waveform))))
    mel = librosa.feature.melspectrogram(
        y=padded, sr=SAMPLE_RATE, n_fft=WINDOW, hop_length=hop, n_mels=MELS
    )
    decibels = librosa.power_to_db(mel, ref=max(float(mel.max()), 1e-10), top_db=RANGE)
    file = io.BytesIO()
    quality = {"quality": 60}
    colours = {"cmap": "magma", "vmin": -RANGE, "vmax": 0}
    imsave(file, decibels[::-1], format="webp", pil_kwargs=quality, **colours)
    return file.getvalue()


def _peaks(waveform: Float[np.ndarray, "S"]) -> list[int]:
    parts = np.array_split(np.abs(waveform), min(PEAKS, max(len(waveform), 1)))
    peaks = np.array([part.max(initial=0.0) for part in parts])
    return np.rint(100 * peaks / max(float(peaks.max()), 1e-6)).astype(int).tolist()


def _url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
