"""Spoken words, by espeak-ng.

The library is called through ctypes, as the packages that wrap it play audio or return phonemes but give no samples.
"""

import ctypes
import shutil
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from sari_jax.audio.spans import SAMPLE_RATE
from sari_jax.errors import InputError

SYNCHRONOUS, RATE_PARAMETER = 2, 1

_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Speaker:
    """espeak-ng, one utterance at a time. The same utterances in the same order are the same bits."""

    def __init__(self):
        import espeakng_loader

        # Each speaker loads its own copy of the library, whose globals keep state of the last utterance. With a shared
        # copy a second corpus of the same process would not have the same bits.
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copy(espeakng_loader.get_library_path(), folder))
            self._library = ctypes.CDLL(str(copy))
        self._libc = ctypes.CDLL(None)
        data = espeakng_loader.get_data_path().encode()
        self._rate = self._library.espeak_Initialize(SYNCHRONOUS, 0, data, 0)
        if self._rate <= 0:
            raise InputError("espeak-ng did not start; reinstall espeakng-loader")
        self._pieces: list[np.ndarray] = []
        self._callback = _CALLBACK(self._take)  # kept, or ctypes would free it
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples, count: int, _) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str, voice: str, words_per_minute: int = 165) -> Float[np.ndarray, "S"]:
        """Returns an utterance at 16 kHz, without the silence around it.

        Args:
            voice: language and variant, such as "en-us+f2".
        """
        self._pieces.clear()
        # Breath is noise from espeak-ng's generator, which the clock seeds, and from the C library's generator.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._libc.srand(1)
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise InputError(f"espeak-ng has no voice {voice!r}; reinstall espeakng-loader")
        self._library.espeak_SetParameter(RATE_PARAMETER, words_per_minute, 0)
        raw = text.encode()
        self._library.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, 1, None, None)
        import librosa

        samples = np.concatenate(self._pieces).astype(np.float32) / 32768
        return trim(
            librosa.resample(samples, orig_sr=self._rate, target_sr=SAMPLE_RATE, res_type="soxr_hq")
        )


def trim(samples: Float[np.ndarray, "S"]) -> Float[np.ndarray, "T"]:
    """Cuts leading and trailing silence (30 dB below the peak) and brings the peak to 0.5."""
    import librosa  # imported here, as assembling a model reads this package's texts alone

    samples, _ = librosa.effects.trim(samples, top_db=30, frame_length=512, hop_length=128)
    return samples * (0.5 / max(float(np.abs(samples).max()), 1e-6))
